"""The one rule for the best ticket of a search."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.engines.objective import Objective
from keras_lottery.search.results import objective_of, verdict

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 3
"""So many replicates can show that a ticket matches (docs/concepts/verdict.md)."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best ticket of a search, and why it was chosen; `str()` says it in words.

    Attributes:
        level, replicate: which ticket it is.
        density: the share of weights that it keeps.
        matches: whether its level is shown to match the dense network.
        levels, replicates: how many levels were compared, over how many replicates.
        difference, low, high: the level's objective less that of the dense network on
            the validation data: the mean over replicates and its 95 % confidence
            interval.
        margin: how much worse than the dense network a ticket may be and still match
            it.
        test, dense_test: the objective of the level and of the dense network on the
            test data, which played no part in the choice; NaN without test data.
        objective: the metric by which they are compared.
    """

    level: int
    replicate: int
    density: float
    matches: bool
    levels: int
    replicates: int
    difference: float
    low: float
    high: float
    margin: float
    test: float
    dense_test: float
    objective: Objective

    def __str__(self) -> str:
        what, signed = self.objective.words, self.objective.signed
        place = f"level {self.level} ({100 * self.density:.2f} % of the weights)"
        over = f"over {self.replicates} replicate{'s' * (self.replicates != 1)}"
        interval = f"{signed(self.low).removesuffix(' pp')} to {signed(self.high)}"
        if self.replicates > 1:
            over = f"95 % interval {interval} {over}"
        differs = f"validation {what} differs by {signed(self.difference)} ({over})"
        limit = "no margin"
        if not np.isnan(self.margin):
            limit = f"a margin of {self.objective.amount(self.margin)}"
        if self.matches:
            text = (
                f"The ticket of {place} matches the dense network; of {self._levels} "
                f"it is the sparsest that is shown to do so. Its {differs}, with "
                f"{limit}"
            )
        else:
            text = (
                f"No ticket of {self._levels} is shown to match the dense network"
                f", with {limit}{self._too_few}; the best guess is {place}, whose "
                f"{differs}"
            )
        if np.isnan(self.test):
            return f"{text}."
        one, other = map(self.objective.value, (self.test, self.dense_test))
        return (
            f"{text}. On the test data, which chose nothing, it has {one}, and the "
            f"dense network {other}."
        )

    @property
    def _levels(self) -> str:
        return f"{self.levels} level{'s' * (self.levels != 1)}"

    @property
    def _too_few(self) -> str:
        if self.replicates >= FEWEST:
            return ""
        count = "one replicate" if self.replicates == 1 else "two replicates"
        return f" ({count} can hardly show it: ask for {FEWEST} or more)"


def best_of(
    results: "pd.DataFrame",
    margin: float | str = "auto",
    objective: Objective | None = None,
    examples: int | None = None,
) -> Best:
    """The sparsest level that is shown to match the dense network, on validation data.

    Shown means `confirmed` in `kl.results.verdict`: after Holm's correction for the
    number of levels. If no level is confirmed, it is the sparsest one that is within
    the margin on average, or else the best one on average. Among the replicates of that
    level the median ticket is taken, the lower one of an even number: the value of the
    best replicate would be too optimistic.

    Args:
        results: the table of `Run.results()`.
        margin, objective, examples: same as in `kl.results.verdict`.

    Raises:
        ValueError: if no ticket, or no dense network, was trained yet.
    """
    objective = objective or objective_of(results)
    table = _on_validation(results, margin, objective, examples)
    shown = table.index[table["confirmed"]]
    gain = objective.gain(table["difference"], 0)
    within = table.index[gain >= -table["margin"]]
    found = shown if len(shown) else within
    level = int(found.max()) if len(found) else int(gain.idxmax())
    row = table.loc[level]
    tickets = results[results["variant"] == "ticket"].groupby("level")
    test = tickets[objective.column("early_stop", "test")].mean()
    return Best(
        level=level,
        replicate=median_replicate(results, level, objective),
        density=float(row["density"]),
        matches=bool(len(shown)),
        levels=len(table),
        replicates=int(row["replicates"]),
        **{name: float(row[name]) for name in ("difference", "low", "high", "margin")},
        test=float(test[level]),
        dense_test=float(test[0]),
        objective=objective,
    )


def best_level(results: "pd.DataFrame", objective: Objective) -> int:
    """The best sparse level on the validation data."""
    table = _on_validation(results, 0.0, objective, None)
    return int(objective.best(table["difference"]))


def median_replicate(results: "pd.DataFrame", level: int, objective: Objective) -> int:
    """The replicate with the median ticket of a level on the validation data."""
    is_ticket = (results["variant"] == "ticket") & (results["level"] == level)
    tickets = results[is_ticket].dropna(subset=[objective.column("early_stop")])
    gains = objective.gain(tickets[objective.column("early_stop")], 0)
    ranked = tickets.assign(gain=gains).sort_values(["gain", "replicate"])
    return int(ranked["replicate"].iloc[(len(ranked) - 1) // 2])


def _on_validation(
    results: "pd.DataFrame",
    margin: float | str,
    objective: Objective,
    examples: int | None,
) -> "pd.DataFrame":
    """The verdict on each level that has an objective to compare."""
    levels = results.loc[results["variant"] == "ticket", "level"]
    if (levels == 0).any() and (levels > 0).any():
        table = verdict(results, "validation", margin, objective, examples)
        if len(table := table.set_index("level").dropna(subset=["difference"])):
            return table
    raise ValueError(
        "There is no ticket to compare with the dense network: call `search` first."
    )
