"""The tables of a report, whose cells are texts."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_lottery.engines.objective import Objective
from keras_lottery.search.results import in_words, own_steps
from keras_lottery.study.report.content import NONE, Content, Replicate, percent
from keras_lottery.tickets.controls import CONTROLS

if TYPE_CHECKING:
    import pandas as pd


class Table(NamedTuple):
    """A table of a page; the first cell of each row is its heading."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def number(value: Any) -> str:
    """A number as text for a table, or a dash for NaN."""
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def verdict_table(
    results: "pd.DataFrame", verdict: "pd.DataFrame", objective: Objective
) -> Table:
    """A row for each level, with verdict, difference, objectives and early stops.

    Args:
        results: the table of `LotteryTicketSearch.results()`.
        verdict: the verdict on it, by the validation data.
        objective: the objective by which the trainings are compared.
    """
    words = in_words(verdict)
    compared = verdict.set_index("level").to_dict("index") if len(verdict) else {}
    parts = {"val": "validation"}
    if results[objective.column("early_stop", "test")].notna().any():
        parts["test"] = "test"
    last = list(parts)[-1]
    controls = [v for v in results["variant"].unique() if v != "ticket"]
    shown = [("ticket", part) for part in parts] + [(c, last) for c in controls]
    unit = " (pp)" if objective.is_share else ""
    header = ["level", "weights left", "verdict"]
    header += [f"ticket minus dense{unit}", f"95 % interval{unit}"]
    for variant, part in shown:
        header.append(f"{variant}: {parts[part]} {objective.words}")
        header += ["early stop"] * (part == last)
    rows = []
    for level, trained in own_steps(results).groupby("level"):
        cells = [
            str(level),
            percent(trained["density"].mean()),
            words.get(int(level), "" if level else "dense"),
            *_differences(objective, compared.get(level)),
        ]
        for variant, part in shown:
            of = trained[trained["variant"] == variant]
            values = of[objective.column("early_stop", part)].dropna()
            cells.append(objective.text(values) if len(values) else "")
            if part == last:
                stop = of["early_stop_step"].mean()
                cells.append(f"{stop:,.0f}" if len(values) else "")
        rows.append(cells)
    return Table(_caption(verdict, objective, controls), header, rows)


def _differences(
    objective: Objective, row: Mapping[str, float] | None
) -> tuple[str, str]:
    if row is None:
        return "", ""
    ends = objective.signed(row["difference"]), interval_of(objective, row)
    return ends[0].removesuffix(" pp"), ends[1].removesuffix(" pp")


def interval_of(objective: Objective, row: Mapping[str, float]) -> str:
    """The confidence interval of a difference, or a dash if there is none."""
    if np.isnan(row["low"]):
        return NONE
    low = objective.signed(row["low"]).removesuffix(" pp")
    return f"{low} to {objective.signed(row['high'])}"


def _caption(
    verdict: "pd.DataFrame", objective: Objective, controls: Sequence[str]
) -> str:
    """The caption, which explains the words and numbers of the table."""
    text = (
        f"{objective.words.capitalize()} and step at the early stop, mean ± standard "
        "deviation. The early stop is the step with the lowest validation loss, "
        "counted from the start of the training."
    )
    if len(verdict):
        margin, side = verdict["margin"].iloc[0], "above"
        limit = "not known"
        if not np.isnan(margin):
            limit = objective.signed(objective.gain(-margin, 0))
        if objective.direction == "min":
            side = "below"
        opposite = {"above": "below", "below": "above"}[side]
        text += (
            " The verdict compares ticket and dense network on the validation data, "
            f"paired by replicate. Better: the whole interval is {side} zero. Worse: "
            f"it is {opposite} zero. Matching: it is {side} the margin, {limit}. *: "
            f"this still holds after Holm's correction for {len(verdict)} levels."
        )
    if controls:
        text += (
            " Beats: the whole interval of the difference between ticket and control "
            "is better than zero."
        )
    for control in controls:
        if control in CONTROLS.names():
            what = inspect.getdoc(CONTROLS.look_up(control)) or ""
            what = what.partition("\n")[0]
            text += f" {control}: {what[:1].lower()}{what[1:]}"
    return text


def layer_table(content: Content, replicate: Replicate) -> Table:
    """The share of each layer's weights that remain at each level of a replicate."""
    levels = sorted(replicate.layers)
    rows = [
        [name, *(percent(replicate.layers[level][name]) for level in levels)]
        for name in replicate.layers[levels[0]]
    ]
    rows.append(["all", *(percent(content.density(level)) for level in levels)])
    header = ["weight", *(f"level {level}" for level in levels)]
    return Table(
        f"Share of the weights that each level leaves, in replicate {replicate.number}",
        header,
        rows,
    )


def export_table(content: Content) -> Table | None:
    """The measurements on the exported files."""
    if not (exports := content.run.exports):
        return None
    rows = [
        [
            str(export["format"]),
            str(export["path"]),
            number(export["bytes"]),
            percent(export["bytes"] / export["dense_bytes"]),
            number(export["gzip_bytes"]),
            percent(_or_nan(export["accuracy"])),
            percent(_or_nan(export["keras_accuracy"])),
            number(export["max_difference"]),
            " ".join(export["notes"]),
        ]
        for export in exports["exports"]
    ]
    header = ["format", "file", "bytes", "of dense", "after gzip", "accuracy"]
    header += ["Keras model's", "largest difference", "notes"]
    return Table(
        f"Files of the ticket of level {exports['level']}, "
        f"{percent(exports['density'])} of the weights left, measured on the files",
        header,
        rows,
    )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def settings_table(content: Content) -> Table:
    """The settings of the search, and the versions with which it ran."""
    settings = {k: v for k, v in content.settings.items() if k != "architecture"}
    model = dict(settings.pop("model"))
    layers = model.pop("layers")
    rows = [*_flat(settings), *_flat({"model": model})]
    rows += [[f"versions of {n} trainings", v] for v, n in content.versions.items()]
    rows += [
        [f"layer {path}", ", ".join(_layer(dict(layer)))]
        for path, layer in layers.items()
    ]
    caption = "The settings of the search, and the versions that it ran on"
    return Table(caption, ["setting", "value"], rows)


def _layer(layer: dict[str, Any]) -> Iterator[str]:
    """A layer's class, and its settings that have a single value."""
    yield layer.pop("class")
    for key, value in layer.items():
        is_single = isinstance(value, str | int | float)
        if is_single and value is not True and value != "float32":
            yield f"{key} {value}"


def _flat(value: Any, name: str = "") -> Iterator[list[str]]:
    """Nested settings, by dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield [name, _text(value)]


def _text(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def training_table(content: Content) -> Table | None:
    """The table of results, unchanged."""
    objective = content.objective
    shares = ("sity", objective.metric) if objective.is_share else ("sity",)
    rows = [
        [percent(v) if c.endswith(shares) else number(v) for c, v in row.items()]
        for row in content.results.to_dict("records")
    ]
    header = [column.replace("_", " ") for column in content.results.columns]
    caption = (
        "One row per training; the early stop counts from step 0, not from the start"
    )
    return Table(caption, header, rows)
