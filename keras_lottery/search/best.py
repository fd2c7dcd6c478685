"""The one rule for the best ticket of a search."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_lottery.search.results import verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Best:
    """Which ticket is the best of a search; `str()` says it in words.

    Attributes:
        level, replicate: which ticket.
        density: the share of weights that it has left.
        wins: whether its level wins. If not, none does, and it is the most accurate.
        tolerance: how far below the dense network's accuracy a level may win.
    """

    level: int
    replicate: int
    density: float
    wins: bool
    tolerance: float

    def __str__(self) -> str:
        place = f"level {self.level} ({self.density:.2%} of the weights left)"
        on = "on the validation data"
        if self.tolerance:
            on += (
                f", within {100 * self.tolerance:g} pp of the dense network's accuracy"
            )
        if self.wins:
            return f"{place}, the sparsest that wins {on}"
        return f"{place}, the most accurate; none wins {on}"


def best_of(results: "pd.DataFrame", tolerance: float = 0.0) -> Best:
    """The sparsest winning level's best replicate, by validation accuracy.

    Where no level wins, it is the most accurate one. Accuracies are those of the early
    stop.

    Args:
        results: the table of `Run.results()`.
        tolerance: same as `kl.results.verdict`.

    Raises:
        ValueError: if no ticket was trained yet, or not the dense network.
    """
    table = _on_validation(results, tolerance)
    winners = table.index[table["winning"]]
    level = int(winners.max()) if len(winners) else most_accurate(results)
    return Best(
        level=level,
        replicate=best_replicate(results, level),
        density=float(table.loc[level, "density"]),
        wins=bool(len(winners)),
        tolerance=tolerance,
    )


def most_accurate(results: "pd.DataFrame") -> int:
    """The level, but for the dense one, of highest validation accuracy."""
    return int(_on_validation(results)["accuracy_difference"].idxmax())


def best_replicate(results: "pd.DataFrame", level: int) -> int:
    """The replicate whose ticket of a level has the highest validation accuracy."""
    is_ticket = (results["variant"] == "ticket") & (results["level"] == level)
    best = results.loc[is_ticket, "early_stop_val_accuracy"].idxmax()
    return int(results.loc[best, "replicate"])


def _on_validation(results: "pd.DataFrame", tolerance: float = 0.0) -> "pd.DataFrame":
    """The verdict by level, of those that have an accuracy to compare."""
    levels = results.loc[results["variant"] == "ticket", "level"]
    if (levels == 0).any() and (levels > 0).any():
        table = verdict(results, "validation", tolerance).set_index("level")
        if len(table := table.dropna(subset=["accuracy_difference"])):
            return table
    raise ValueError(
        "There is no ticket to compare with the dense network: call `search` first."
    )
