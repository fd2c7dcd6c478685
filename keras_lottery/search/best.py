"""The one rule for the best ticket of a search."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_lottery.engines.objective import Objective
from keras_lottery.search.results import objective_of, verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Best:
    """Which ticket is the best of a search; `str()` says it in words.

    Attributes:
        level, replicate: which ticket.
        density: the share of weights that it has left.
        wins: whether its level wins. If not, none does, and it is the closest.
        tolerance: how much worse than the dense network a level may be and win.
        objective: what they are compared by.
    """

    level: int
    replicate: int
    density: float
    wins: bool
    tolerance: float
    objective: Objective

    def __str__(self) -> str:
        place = f"level {self.level} ({self.density:.2%} of the weights left)"
        on = "on the validation data"
        if self.tolerance:
            within = self.objective.amount(self.tolerance)
            on += f", within {within} of the dense network's {self.objective.words}"
        if self.wins:
            return f"{place}, the sparsest that wins {on}"
        return f"{place}, the best; none wins {on}"


def best_of(
    results: "pd.DataFrame",
    tolerance: float = 0.0,
    objective: Objective | None = None,
) -> Best:
    """The sparsest winning level's best replicate, by the validation data.

    Where no level wins, it is the best one. What is compared is the objective at the
    early stop.

    Args:
        results: the table of `Run.results()`.
        tolerance, objective: same as `kl.results.verdict`.

    Raises:
        ValueError: if no ticket was trained yet, or not the dense network.
    """
    objective = objective or objective_of(results)
    table = _on_validation(results, tolerance, objective)
    winners = table.index[table["winning"]]
    level = int(winners.max()) if len(winners) else best_level(results, objective)
    return Best(
        level=level,
        replicate=best_replicate(results, level, objective),
        density=float(table.loc[level, "density"]),
        wins=bool(len(winners)),
        tolerance=tolerance,
        objective=objective,
    )


def best_level(results: "pd.DataFrame", objective: Objective) -> int:
    """The level, but for the dense one, that is the best on the validation data."""
    table = _on_validation(results, 0.0, objective)
    return int(objective.best(table["difference"]))


def best_replicate(results: "pd.DataFrame", level: int, objective: Objective) -> int:
    """The replicate whose ticket of a level is the best on the validation data."""
    is_ticket = (results["variant"] == "ticket") & (results["level"] == level)
    best = objective.best(results.loc[is_ticket, objective.column("early_stop")])
    return int(results.loc[best, "replicate"])


def _on_validation(
    results: "pd.DataFrame", tolerance: float, objective: Objective
) -> "pd.DataFrame":
    """The verdict by level, of those that have an objective to compare."""
    levels = results.loc[results["variant"] == "ticket", "level"]
    if (levels == 0).any() and (levels > 0).any():
        table = verdict(results, "validation", tolerance, objective)
        if len(table := table.set_index("level").dropna(subset=["difference"])):
            return table
    raise ValueError(
        "There is no ticket to compare with the dense network: call `search` first."
    )
