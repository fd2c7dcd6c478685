"""The page: which sections it has, and what they say."""

import base64
import json
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template

from keras_lottery.files import write_atomically
from keras_lottery.search.results import own_steps
from keras_lottery.study import plots
from keras_lottery.study.report import html
from keras_lottery.study.report.figures import Panel, panels
from keras_lottery.study.report.run import Run, percent, read_run
from keras_lottery.study.report.tables import (
    export_table,
    layer_table,
    points,
    settings_table,
    training_table,
    verdict_table,
)

FEW = 6


def write_report(
    directory: str | os.PathLike,
    path: str | os.PathLike | None = None,
    figures: str | os.PathLike | None = None,
) -> Path:
    """Writes what a run found as one page of HTML.

    The page needs no other file and no network. It holds accuracies and early stops of
    tickets and controls, the verdict, learning curves, what is left of each layer and
    of the input, histograms of weights, exports, settings and versions. A search that
    is not finished is reported as far as it has come.

    Args:
        directory: the directory of a `LotteryTicketSearch`.
        path: where to write the page; by default `report.html` in the directory.
        figures: a directory for the same figures as .png and .svg files.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: if there is no search in the directory.
        CorruptedFileError: if its settings are damaged.

    Example:

    >>> import tempfile
    >>> import keras, numpy as np
    >>> import keras_lottery as kl
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.random((40, 4, 4)), rng.integers(0, 2, 40)
    >>> model = keras.Sequential(
    ...     [keras.Input((4, 4)), keras.layers.Flatten(),
    ...      keras.layers.Dense(2, "softmax")])
    >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    >>> folder = tempfile.mkdtemp()
    >>> search = kl.LotteryTicketSearch(model, [0.5], directory=folder, workers=0)
    >>> table = search.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    >>> write_report(folder).name
    'report.html'
    """
    run = read_run(directory)
    drawn = list(panels(run))
    template = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
    page = template.substitute(
        title=escape(run.name),
        subtitle=escape(_subtitle(run)),
        notes="\n".join(html.paragraph(note, "note") for note in _notes(run)),
        tiles=f'<dl class="tiles">{html.tiles(_tiles(run))}</dl>',
        sections="\n".join(part for part in _sections(run, drawn) if part),
    )
    path = Path(path or run.store.directory / "report.html")
    write_atomically(path, lambda file: file.write(page.encode()))
    if figures is not None:
        for panel in drawn:
            for kind in (".png", ".svg"):
                plots.write_figure(panel.figure, Path(figures) / f"{panel.name}{kind}")
    return path


def _subtitle(run: Run) -> str:
    model = json.loads(run.settings["architecture"])["config"].get("name", "a model")
    replicates = run.settings["replicates"]
    controls = ", ".join(run.settings["controls"]) or "none"
    return (
        f"A search for winning lottery tickets. Model: {model}. Replicates: "
        f"{replicates}. Controls: {controls}."
    )


def _notes(run: Run) -> Iterator[str]:
    if run.missing:
        yield (
            f"This search is not finished: {run.missing} of "
            f"{run.missing + len(run.results)} trainings are missing. Run it again "
            "with the same settings to go on, and then this report."
        )
    for text in run.damaged:
        yield f"Left out: {text}"


def _tiles(run: Run) -> Iterator[tuple[str, str, str]]:
    table, level = own_steps(run.results), run.winner
    tickets = table[table["variant"] == "ticket"].groupby("level")
    accuracy = tickets[run.accuracy].mean()
    stop = tickets["early_stop_step"].mean()
    if len(run.verdict) and level is None:
        levels = f"of {len(run.verdict)} levels, on validation data"
        yield "Sparsest winning ticket", "none", levels
    if level is not None:
        row = run.verdict.set_index("level").loc[level]
        yield (
            "Sparsest winning ticket",
            percent(run.density(level)),
            f"of the weights left, level {level} of "
            f"{int(run.verdict['level'].max())}; it wins on validation data",
        )
        yield (
            f"Its {run.on} accuracy",
            percent(accuracy[level]),
            f"{points(row['accuracy_difference'])} against the dense network",
        )
        yield (
            "Its early stop",
            f"step {stop[level]:,.0f}",
            f"the dense network's: {stop[0]:,.0f}",
        )
    elif 0 in accuracy:
        yield "The dense network", percent(accuracy[0]), f"{run.on} accuracy"
    if len(table):
        yield (
            "Trained",
            f"{table['seconds'].sum():,.1f} s",
            f"in {len(table)} trainings, their validation left out",
        )


def _sections(run: Run, drawn: list[Panel]) -> Iterator[str]:
    def of(section: str) -> list[Panel]:
        return [panel for panel in drawn if panel.section == section]

    yield html.section(
        "Does the ticket win?",
        html.paragraph(
            "A ticket wins if it has fewer weights than the dense network, is at least "
            "as accurate, and stops no later. The early stop is the step of least "
            f"validation loss; accuracies are those on {run.on} data there."
        ),
        html.figures(of("verdict")),
        verdict_table(run),
    )
    yield html.section("Learning curves", html.figures(of("curves")))
    yield html.section("What is left", html.figures(of("layers")), layer_table(run))
    weights = of("weights")
    yield html.section(
        "Weights",
        html.paragraph(
            f"Weights of the ticket of level {run.shown}, replicate {run.replicate}, "
            "before any training and after its own, against all weights before any "
            "training. Each histogram has the same area."
        )
        if weights
        else "",
        html.figures(weights[:FEW]),
        html.details(f"{len(weights) - FEW} more layers", html.figures(weights[FEW:])),
    )
    yield html.section("Exports", export_table(run))
    yield html.section("Settings", settings_table(run))
    yield html.section("Trainings", _download(run), _all(run))


def _all(run: Run) -> str:
    count = len(run.results)
    return html.details(f"All {count} trainings", training_table(run)) if count else ""


def _download(run: Run) -> str:
    if not len(run.results):
        return ""
    data = base64.b64encode(run.results.to_csv(index=False).encode()).decode()
    link = (
        f'<a download="results.csv" href="data:text/csv;base64,{data}">results.csv</a>'
    )
    return (
        f'<p class="screen">{link}: the numbers of all {len(run.results)} trainings</p>'
    )
