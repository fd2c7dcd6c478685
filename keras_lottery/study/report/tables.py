"""The tables of a report, as texts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_lottery.engines.objective import Objective
from keras_lottery.search import results
from keras_lottery.study.report.content import NONE, Content, percent

if TYPE_CHECKING:
    import pandas as pd


class Table(NamedTuple):
    """A table of a page; the first cell of a row heads it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def difference_of(objective: Objective, difference: float) -> str:
    """A difference of two values of the objective.

    >>> difference_of(Objective("val_accuracy"), 0.0042)
    '+0.42 pp'
    >>> difference_of(Objective("val_mae"), -0.01)
    '−0.01'
    """
    if np.isnan(difference):
        return NONE
    text = f"{100 * difference:+.2f} pp" if objective.is_share else f"{difference:+.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: Any) -> str:
    """A number of a table, or a dash where there is none."""
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def verdict_table(content: Content) -> Table | None:
    """By level: the objective, early stops, the difference to the dense network."""
    if not len(content.results):
        return None
    words = results.in_words(content.verdict)
    rows = []
    for level, trained in results.own_steps(content.results).groupby("level"):
        verdict = words.get(int(level), "" if level else "dense")
        cells = [str(level), percent(trained["density"].mean()), verdict]
        for variant in content.variants:
            cells += _value_and_stop(content, trained[trained["variant"] == variant])
        rows.append([*cells, *_differences(content, int(level))])
    header = ["level", "weights left", "verdict"]
    for variant in content.variants:
        header += [f"{variant}: {content.objective.words}", "early stop"]
    header += ["ticket less dense", "95 % interval"]
    caption = (
        f"{content.on.capitalize()} {content.objective.words} (mean ± standard "
        "deviation over trainings) and step at the early stop; differences are paired "
        f"by replicate{'; pp: percentage points' * content.objective.is_share}"
    )
    return Table(caption, header, rows)


def _value_and_stop(content: Content, rows: "pd.DataFrame") -> list[str]:
    values = rows[content.column].dropna()
    if not len(values):
        return ["", ""]
    stop = f"{rows['early_stop_step'].mean():,.0f}"
    return [content.objective.text(values), stop]


def _differences(content: Content, level: int) -> list[str]:
    if not len(content.verdict) or level not in set(content.verdict["level"]):
        return ["", ""]
    row = content.verdict.set_index("level").loc[level]
    ends = ("difference", "low", "high")
    mean, low, high = (difference_of(content.objective, row[end]) for end in ends)
    interval = NONE if low == NONE else f"{low.removesuffix(' pp')} to {high}"
    return [mean, interval]


def layer_table(content: Content) -> Table | None:
    """By layer: how many weights it has, and how many of them each level leaves."""
    if not content.layers:
        return None
    levels = sorted(content.layers)
    rows = [
        [name, *(percent(content.layers[level][name]) for level in levels)]
        for name in content.layers[levels[0]]
    ]
    rows.append(["all", *(percent(content.density(level)) for level in levels)])
    header = ["weight", *(f"level {level}" for level in levels)]
    return Table(
        "Share of the weights that each level leaves, of replicate "
        f"{content.replicate}",
        header,
        rows,
    )


def export_table(content: Content) -> Table | None:
    """What was measured on the exported files."""
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


def settings_table(content: Content) -> Table | None:
    """What the search was asked for, and with which versions it ran."""
    settings = {k: v for k, v in content.settings.items() if k != "architecture"}
    model = dict(settings.pop("model"))
    layers = model.pop("layers")
    rows = [*_flat(settings), *_flat({"model": model})]
    rows += [
        [f"layer {path}", ", ".join(_layer(dict(layer)))]
        for path, layer in layers.items()
    ]
    caption = "What the search was asked for, and the versions that it ran on"
    return Table(caption, ["setting", "value"], rows)


def _layer(layer: dict[str, Any]) -> Iterator[str]:
    """A layer's class, and its settings of one value."""
    yield layer.pop("class")
    for key, value in layer.items():
        is_single = isinstance(value, str | int | float)
        if is_single and value is not True and value != "float32":
            yield f"{key} {value}"


def _flat(value: Any, name: str = "") -> Iterator[list[str]]:
    """Settings inside of settings, by dotted names."""
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
    """The table of results, as it is."""
    objective = content.objective
    shares = ("sity", objective.metric) if objective.is_share else ("sity",)
    rows = [
        [percent(v) if c.endswith(shares) else number(v) for c, v in row.items()]
        for row in content.results.to_dict("records")
    ]
    header = [column.replace("_", " ") for column in content.results.columns]
    caption = "One row a training; its early stop is absolute, as its start step is"
    return Table(caption, header, rows)
