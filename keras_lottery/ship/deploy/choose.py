"""Chooses the tickets to try, and the best file."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.engines.objective import ACCURACY, Objective
from keras_lottery.search.best import Best, best_level, median_replicate

if TYPE_CHECKING:
    import pandas as pd

PREFER = {"latency": "p50_us", "size": "bytes", "download": "gzip_bytes"}
"""What to minimise, and the column of the table that measures it."""


def tickets_to_try(
    results: "pd.DataFrame", best: Iterable[Best], objective: Objective
) -> list[tuple[int, int]]:
    """The tickets to try as (level, replicate): the dense network, then the best ones.

    The best tickets are those that `best` chooses by several margins, and that of the
    level with the highest mean. The replicate of each level is the one that `best_of`
    would choose.

    Raises:
        ValueError: if no ticket has been trained yet.
    """
    levels = {0, best_level(results, objective)}
    levels |= {each.level for each in best}
    return [(k, median_replicate(results, k, objective)) for k in sorted(levels)]


def pareto(table: "pd.DataFrame", objective: Objective = ACCURACY) -> np.ndarray:
    """Marks the Pareto-optimal rows by latency, bytes, gzip bytes and the objective.

    Args:
        table: a table with the columns of `PREFER` and that of the objective on the
            validation data, `validation_<metric>`.
        objective: the metric by which files are compared.

    Example:

    >>> import pandas as pd
    >>> pareto(pd.DataFrame({
    ...     "p50_us": [2.0, 1.0, 1.5], "bytes": [9, 3, 4], "gzip_bytes": [8, 2, 3],
    ...     "validation_accuracy": [0.9, 0.8, 0.7]}))
    array([ True,  True, False])
    """
    worth = objective.gain(table[f"validation_{objective.metric}"], 0)
    costs = np.column_stack([*(table[column] for column in PREFER.values()), -worth])
    no_worse = np.all(costs[:, None] <= costs, axis=2)
    better = np.any(costs[:, None] < costs, axis=2)
    return np.logical_not(np.any(no_worse & better, axis=0))


def choose(
    table: "pd.DataFrame",
    prefer: str,
    margin: float,
    objective: Objective = ACCURACY,
) -> int:
    """The row of the fastest or smallest file that is good enough.

    If several files are equal in this, the best in the other respects is chosen.

    Args:
        table: same as in `pareto`.
        prefer: what to minimise, a key of `PREFER`.
        margin: how much worse than the best file the chosen one may be.
        objective: the metric by which files are compared.
    """
    worth = objective.gain(table[f"validation_{objective.metric}"], 0)
    rounding = 1e-6 * max(abs(worth.max()), margin)  # Keras measures in float32.
    good = table.assign(worth=worth)[worth >= worth.max() - margin - rounding]
    costs = [PREFER[prefer], *(c for name, c in PREFER.items() if name != prefer)]
    ascending = [True] * len(costs) + [False]
    ranked = good.sort_values([*costs, "worth"], ascending=ascending)
    return int(ranked.index[0])


def default_margin(objective: Objective, dense: float | None) -> float:
    """Half a percentage point of accuracy, or a hundredth of another metric's value.

    >>> default_margin(ACCURACY, 0.98), default_margin(Objective("val_mae"), 2.0)
    (0.005, 0.02)
    """
    return 0.005 if objective.is_share or dense is None else abs(dense) / 100
