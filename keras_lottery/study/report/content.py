"""Reads the content of a report on a run."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery.engines.objective import Objective
from keras_lottery.files import CorruptedFileError
from keras_lottery.search import Run, results
from keras_lottery.search.best import Best, best_of
from keras_lottery.search.settings import differences
from keras_lottery.search.store import TrainingId
from keras_lottery.search.trainings import row

if TYPE_CHECKING:
    import pandas as pd

NONE = "\N{EN DASH}"
MOST = 5
"""The largest number of replicates whose masks and weights a report shows."""


@dataclass(frozen=True)
class Replicate:
    """The masks of one replicate's tickets.

    Attributes:
        number: the number of the replicate.
        layers: the share of remaining weights, by level and weight.
        first: the first layer's masks, by level.
    """

    number: int
    layers: dict[int, dict[str, float]]
    first: dict[int, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Content:
    """A stored search, finished or not.

    Attributes:
        run: the run from which it is read.
        settings: the settings of the search.
        objective: the objective by which its trainings are compared.
        results: a row for each training.
        verdict: a row for each level; empty if there are no tickets yet.
        best: the best ticket, if there is any.
        curves: validation loss and objective by step, for each training.
        replicates: the replicates whose masks and weights are shown, at most `MOST`;
            the first one is that of the best ticket.
        damaged: the files that could not be read.
        versions: versions of packages other than those with which the search began,
            and how many trainings ran on them.
    """

    run: Run
    settings: dict[str, Any]
    objective: Objective
    results: "pd.DataFrame"
    verdict: "pd.DataFrame"
    best: Best | None
    curves: dict[TrainingId, dict[str, list[float]]]
    replicates: list[Replicate]
    damaged: list[str]
    versions: dict[str, int]

    @property
    def missing(self) -> set[TrainingId]:
        """The trainings that are still missing."""
        return self.run.expected() - self.curves.keys()

    @property
    def variants(self) -> list[str]:
        """The ticket and its controls."""
        found = self.results["variant"].unique()
        return sorted(found, key=lambda name: (name != "ticket", name))

    @property
    def parts(self) -> dict[str, str]:
        """The validation data, and the test data if there are any, by column."""
        parts = {"validation": "val", "test": "test"}
        columns = {k: self.objective.column("early_stop", p) for k, p in parts.items()}
        return {k: c for k, c in columns.items() if self.results[c].notna().any()}

    def compared(self, part: str) -> "pd.DataFrame":
        """The verdict on the `"validation"` or `"test"` data, by level."""
        table = results.verdict(self.results, part, **self.run.terms)
        return table.set_index("level")

    @property
    def trained(self) -> str:
        """The time at which the last training was stored."""
        paths = [self.run.store.training(which) for which in self.curves]
        last = max((path.stat().st_mtime for path in paths), default=None)
        if last is None:
            return "not yet"
        return f"{datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def shown(self) -> int:
        """The level that is shown in detail: that of the best ticket, or the last."""
        return self.best.level if self.best else int(self.results["level"].max())

    def shown_of(self, replicate: Replicate) -> int:
        """The same level of a replicate, or its last one if it lacks that level."""
        levels = replicate.layers
        return self.shown if self.shown in levels else max(levels)

    def density(self, level: int) -> float:
        """The share of weights that remain at a level."""
        rows = self.results[self.results["level"] == level]
        return float(rows["density"].mean())


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.9625), percent(float("nan"))
    ('96.25 %', '–')
    """
    return NONE if np.isnan(share) else f"{100 * share:.2f} %"


def read_content(directory: str | os.PathLike) -> Content:
    """Reads the content of a report on a run.

    Raises:
        FileNotFoundError: if there is no run in the directory.
        CorruptedFileError: if its settings are damaged. Other damaged files are left
            out, and named.
    """
    run = Run.load(directory)
    damaged: list[str] = []
    trainings = run.trainings(damaged)
    tickets = sorted(which for which in trainings if which.variant == "ticket")
    objective = run.objective
    table = results.tabulate(map(row, trainings.values()), objective)
    verdict, best = table.iloc[:0], None
    if tickets:
        verdict = results.verdict(table, **run.terms)
    with contextlib.suppress(ValueError):  # There is nothing to compare yet.
        best = best_of(table, **run.terms)
    numbers = sorted({which.replicate for which in tickets})
    if best:
        numbers.sort(key=lambda number: number != best.replicate)
    replicates = [
        _read_replicate(run, number, tickets, damaged) for number in numbers[:MOST]
    ]
    return Content(
        run=run,
        settings=run.settings,
        objective=objective,
        results=table,
        verdict=verdict,
        best=best,
        curves={which: training["curve"] for which, training in trainings.items()},
        replicates=[replicate for replicate in replicates if replicate.layers],
        damaged=damaged,
        versions=_other_versions(run.settings["versions"], trainings.values()),
    )


def _read_replicate(
    run: Run, number: int, tickets: Iterable[TrainingId], damaged: list[str]
) -> Replicate:
    """Reads the masks of a replicate's tickets; damaged files are left out."""
    replicate = Replicate(number, {}, {})
    for which in tickets:
        if which.replicate != number:
            continue
        try:
            masks = run.masks(which.level, number)
        except CorruptedFileError as error:
            damaged.append(str(error))
            continue
        shares = {name: float(mask.mean()) for name, mask in masks.items()}
        replicate.layers[which.level] = shares
        replicate.first[which.level] = next(iter(masks.values()))
    return replicate


def _other_versions(
    began: Mapping[str, str], trainings: Iterable[Mapping[str, Any]]
) -> dict[str, int]:
    """The versions of trainings that differ from those with which the search began."""
    texts = (
        ", ".join(f"{name} {own}" for name, _, own in differences(began, each))
        for each in (training["versions"] for training in trainings)
    )
    return dict(Counter(text for text in texts if text))
