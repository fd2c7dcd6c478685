"""Writes a comparison of several runs as one page of HTML."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_lottery import checks
from keras_lottery.files import write_atomically
from keras_lottery.search.results import own_steps
from keras_lottery.study import plots
from keras_lottery.study.report.content import NONE, Content, percent, read_content
from keras_lottery.study.report.figures import Panel, by_density
from keras_lottery.study.report.tables import (
    Table,
    interval_of,
    settings_table,
    verdict_table,
)
from keras_lottery.study.report.write import embedded, render

Contents = dict[str, Content]


def compare_runs(
    directories: Sequence[str | os.PathLike],
    path: str | os.PathLike = "comparison.html",
    figures: str | os.PathLike | None = None,
) -> Path:
    """Writes the results of several runs as one page of HTML.

    The page shows the tickets' curves of all runs in one figure, the result of each
    run, the settings in which the runs differ, and their verdicts level by level. It
    needs no other file and no network.

    Args:
        directories: the directories of two or more searches with the same objective.
        path: where to write the page, ending in `.html`.
        figures: a directory for the same figures as .png and .svg files.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: if there is no search in a directory.
        ValueError: if there are fewer than two directories, one is given twice, their
            objectives differ, one has no training yet, or `path` cannot be written.
        CorruptedFileError: if the settings of a search are damaged.

    Example::

        compare_runs(["runs/magnitude", "runs/snip"])  # comparison.html
    """
    form = "directories of searches, at least two"
    for directory in checks.sequence("directories", directories, form, 2):
        checks.instance("directories", directory, (str, os.PathLike), form)
    checks.path("path", path, (".html",))
    if figures is not None:
        checks.directory("figures", figures)
    contents = _read(directories)
    drawn = _panels(contents)
    page = render(
        "compare.html",
        title=f"{len(contents)} searches for winning tickets",
        lead=_lead(contents),
        damaged=[text for content in contents.values() for text in content.damaged],
        panels=[embedded(panel) for panel in drawn],
        runs=_runs(contents),
        settings=_settings(contents),
        levels=_levels(contents),
    )
    write_atomically(Path(path), lambda file: file.write(page.encode()))
    if figures is not None:
        plots.write_figures({panel.name: panel.figure for panel in drawn}, figures)
    return Path(path)


def _read(directories: Sequence[str | os.PathLike]) -> Contents:
    """Reads the runs, which are named by the shortest endings of paths that differ."""
    paths = [Path(directory).resolve() for directory in directories]
    if len(set(paths)) < len(paths):
        checks.refuse("directories", "each run once", list(map(str, directories)))
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(paths):
        parts += 1
    contents = {
        "/".join(path.parts[-parts:]): read_content(directory)
        for path, directory in zip(paths, directories, strict=True)
    }
    objectives = {name: content.objective.name for name, content in contents.items()}
    if len(set(objectives.values())) > 1:
        checks.refuse("directories", "runs of one objective", objectives)
    for name, content in contents.items():
        if not len(content.results):
            checks.refuse("directories", "runs with a training at least", name)
    return contents


def _lead(contents: Contents) -> str:
    """A sentence on which run has the sparsest ticket that matches."""
    found = {
        name: content.best.density
        for name, content in contents.items()
        if content.best and content.best.matches
    }
    if not found:
        return "In none of them is a ticket shown to match the dense network."
    name = min(found, key=found.__getitem__)
    return (
        "The sparsest ticket that is shown to match its dense network has "
        f"{percent(found[name])} of the weights: that of {name}."
    )


def _panels(contents: Contents) -> list[Panel]:
    """Figures of all tickets' objectives and early stops.

    They show test data if all runs have them.
    """
    first = next(iter(contents.values()))
    objective = first.objective
    tickets = {
        name: content.results[content.results["variant"] == "ticket"]
        for name, content in contents.items()
    }
    panels = [
        by_density(
            tickets,
            column,
            f"{part} {objective.words}{objective.unit}",
            objective.scale,
        )
        for part, column in first.parts.items()
        if all(part in content.parts for content in contents.values())
    ]
    own = {name: own_steps(table) for name, table in tickets.items()}
    return [*panels, by_density(own, "early_stop_step", "early stop (step)", 1)]


def _runs(contents: Contents) -> Table:
    objective = next(iter(contents.values())).objective
    header = ["run", "trainings", "replicates", "best ticket", "level", "verdict"]
    header += ["ticket minus dense", "95 % interval"]
    header += [f"test {objective.words}", "dense network's"]
    rows = []
    for name, content in contents.items():
        cells = [name, f"{len(content.results)}", f"{content.settings['replicates']}"]
        if best := content.best:
            row = content.verdict.set_index("level").loc[best.level]
            cells += [percent(best.density), str(best.level), str(row["verdict"])]
            cells += [objective.signed(best.difference), interval_of(objective, row)]
            if "test" in content.parts:
                cells += [objective.value(v) for v in (best.test, best.dense_test)]
        rows.append(cells + [NONE] * (len(header) - len(cells)))
    return Table("The best ticket of each run, by one rule for all", header, rows)


def _settings(contents: Contents) -> Table:
    """The settings in which runs differ."""
    settings = [
        {name: value for name, value in settings_table(content).rows}
        for content in contents.values()
    ]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [
        [name, *(each.get(name, NONE) for each in settings)]
        for name in names
        if len({each.get(name) for each in settings}) > 1
    ]
    caption = "Settings and versions in which they differ"
    return Table(caption, ["setting", *contents], rows)


def _levels(contents: Contents) -> Table:
    """For each level: the density, the verdict, the difference, and an objective."""
    rows, header = [], []
    for name, content in contents.items():
        table = verdict_table(content.results, content.verdict, content.objective)
        header = list(table.header[:6])
        rows += [[name, *row[:6]] for row in table.rows]
    return Table("The tickets of each run", ["run", *header], rows)
