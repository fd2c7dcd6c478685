"""Writes a report on a run as one page of HTML."""

import base64
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_lottery import checks
from keras_lottery.files import write_atomically
from keras_lottery.search.results import own_steps
from keras_lottery.study import plots
from keras_lottery.study.report.content import (
    NONE,
    Content,
    Replicate,
    percent,
    read_content,
)
from keras_lottery.study.report.figures import Panel, panels
from keras_lottery.study.report.tables import (
    export_table,
    interval_of,
    layer_table,
    settings_table,
    training_table,
    verdict_table,
)


def write_report(
    directory: str | os.PathLike,
    path: str | os.PathLike | None = None,
    figures: str | os.PathLike | None = None,
) -> Path:
    """Writes a report on a run as one page of HTML.

    The page needs no other file, no network and no script. It shows objectives and
    early stops of tickets and controls, the verdict, learning curves, exports, settings
    and versions. For one replicate, which the reader chooses among at most five, it
    also shows what remains of each layer and of the input, and histograms of weights.
    The report on an unfinished search covers the trainings so far.

    Args:
        directory: the directory of a `LotteryTicketSearch`.
        path: where to write the page, ending in `.html`; by default `report.html` in
            the directory.
        figures: a directory for the same figures as .png and .svg files; those of one
            replicate have its number in their names, such as `first_layer_0.svg`.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: if there is no search in the directory.
        ValueError: if `path` has another ending or cannot be written.
        CorruptedFileError: if the settings of the search are damaged.

    Example::

        search = kl.LotteryTicketSearch(build, directory="runs/lenet")
        search.search(x, y, validation_data=validation, epochs=10)
        write_report("runs/lenet")  # runs/lenet/report.html
    """
    if path is not None:
        checks.path("path", path, (".html",))
    if figures is not None:
        checks.directory("figures", figures)
    content = read_content(directory)
    page_path = content.run.directory / "report.html" if path is None else Path(path)
    checks.path("path", page_path, (".html",))
    drawn = list(panels(content))
    page = render(
        "page.html",
        content=content,
        title=content.run.name,
        headline=headline(content),
        model=_model(content),
        tiles=list(_tiles(content)),
        panels={
            section: [embedded(panel) for panel in drawn if panel.section == section]
            for section in ("verdict", "curves")
        },
        replicates=[
            _shown(content, replicate, drawn) for replicate in content.replicates
        ],
        tables={
            "verdict": verdict_table(
                content.results, content.verdict, content.objective
            )
            if len(content.results)
            else None,
            "exports": export_table(content),
            "settings": settings_table(content),
            "trainings": training_table(content),
        },
        trainings=len(content.results),
        csv=_data_url("text/csv", content.results.to_csv(index=False).encode()),
    )
    write_atomically(page_path, lambda file: file.write(page.encode()))
    if figures is not None:
        plots.write_figures({panel.name: panel.figure for panel in drawn}, figures)
    return page_path


def _shown(
    content: Content, replicate: Replicate, drawn: Sequence[Panel]
) -> dict[str, Any]:
    """The content of the page for one replicate."""
    own = [panel for panel in drawn if panel.replicate == replicate.number]
    return {
        "number": replicate.number,
        "level": content.shown_of(replicate),
        "layers": [embedded(panel) for panel in own if panel.section == "layers"],
        "weights": [embedded(panel) for panel in own if panel.section == "weights"],
        "table": layer_table(content, replicate),
    }


def render(template: str, **context: Any) -> str:
    """Renders one of the templates beside this file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_lottery.study.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
    )
    return environment.get_template(template).render(**context)


def _unbroken(value: Any) -> Any:
    """Text in which no line ends between a number and its unit, or before a number."""
    if type(value) is not str:  # Markup already consists of such texts.
        return value
    return re.sub(
        r"(?<=\d) (?=%|pp\b)|(?<=\bn) (?== )|(?<=\bn[ \xa0]=) (?=\d)"
        r"|(?<=\breplicate) (?=\d)|(?<=\bReplicate) (?=\d)",
        "\xa0",
        value,
    )


def headline(content: Content) -> str:
    """The finding of the run in one sentence, as far as there is one."""
    best, words = content.best, content.objective.words
    if not best:
        return "Nothing to compare yet"
    left = f"{100 * best.density:.3g} % of its weights"
    if not best.matches:
        return (
            f"No ticket is shown to match the dense network: the best guess has {left}"
        )
    verdict = content.verdict.set_index("level").loc[best.level, "verdict"]
    better = verdict == "better"
    if content.objective.is_share:
        found = "is more accurate than" if better else "is as accurate as"
        found = f"{found} the dense one"
    else:
        found = f"{'beats' if better else 'matches'} the dense one in {words}"
    return f"With {left} the network {found}{_and_stops(content, best.level)}"


def _and_stops(content: Content, level: int) -> str:
    """How much earlier tickets stop than the dense network, if at all."""
    table = own_steps(content.results)
    stop = (
        table[table["variant"] == "ticket"].groupby("level")["early_stop_step"].mean()
    )
    sooner = 1 - stop[level] / stop[0] if stop[0] else 0
    if abs(sooner) < 0.05 or np.isnan(sooner):
        return ""
    if sooner > 0:
        return f" and stops training {100 * sooner:.0f} % sooner"
    return f" and trains {-100 * sooner:.0f} % longer"


def _model(content: Content) -> str:
    """The name of the model."""
    return json.loads(content.settings["architecture"])["config"].get("name", "a model")


def embedded(panel: Panel) -> dict[str, Any]:
    """A figure in the form in which the page embeds it."""
    import matplotlib

    file = io.BytesIO()
    # Equal figures give equal bytes, and their text uses the reader's fonts.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": panel.name}):
        panel.figure.savefig(file, format="svg", metadata={"Date": None})
    source = _data_url("image/svg+xml", file.getvalue())
    spots = [
        (f"{100 * x:.2f}", f"{100 * y:.2f}", "late" if x > 0.5 else "early", words)
        for x, y, words in panel.spots()
    ]
    return {
        "source": source,
        "alt": panel.alt,
        "caption": panel.caption,
        "spots": spots,
    }


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _tiles(content: Content) -> Iterator[tuple[str, str, str]]:
    """Key figures: the name, the figure, and the one with which it is compared."""
    table, best, objective = own_steps(content.results), content.best, content.objective
    tickets = table[table["variant"] == "ticket"].groupby("level")
    stop = tickets["early_stop_step"].mean()
    if best:
        yield (
            "Sparsest ticket that matches" if best.matches else "Best guess",
            percent(best.density),
            f"of the weights left, level {best.level} of {best.levels}; "
            f"{'' if best.matches else 'not '}shown to match the dense network, margin "
            f"{NONE if np.isnan(best.margin) else objective.amount(best.margin)}",
        )
        for part in content.parts:
            row = content.compared(part).loc[best.level]
            chooses = "select the ticket" if part == "validation" else "select nothing"
            yield (
                f"Its {part} {objective.words}",
                objective.signed(row["difference"]),
                f"against the dense network; 95 % interval "
                f"{interval_of(objective, row)}, n = {best.replicates}; {part} data "
                f"{chooses}",
            )
        yield (
            "Its early stop",
            f"step {stop[best.level]:,.0f}",
            f"the dense network's: {stop[0]:,.0f}",
        )
    elif 0 in stop:
        for part, column in content.parts.items():
            text = objective.text(tickets[column].mean().loc[[0]])
            yield "The dense network", text, f"{part} {objective.words}"
    if len(table):
        yield (
            "Trained",
            f"{table['seconds'].sum():,.1f} s",
            f"in {len(table)} trainings, without their validation",
        )
