"""Which tickets are tried, and which file is chosen."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.engines.objective import Objective
from keras_lottery.search.best import Best, best_level, median_replicate

if TYPE_CHECKING:
    import pandas as pd

PREFER = {"latency": "p50_us", "size": "bytes", "download": "gzip_bytes"}
"""What a file may be best in, and the column of it, of which less is better."""


def tickets_to_try(
    results: "pd.DataFrame", best: Iterable[Best], objective: Objective
) -> list[tuple[int, int]]:
    """Levels and replicates: the dense network first, then the best tickets.

    These are the `best` ones, by several margins, and that of the highest mean. Of a
    level, the replicate is tried that `best_of` would choose.

    Raises:
        ValueError: if no ticket was trained yet.
    """
    levels = {0, best_level(results, objective)}
    levels |= {each.level for each in best}
    return [(k, median_replicate(results, k, objective)) for k in sorted(levels)]


def pareto(table: "pd.DataFrame") -> np.ndarray:
    """The rows that no other beats in latency, bytes, gzip bytes and accuracy alike.

    Example:

    >>> import pandas as pd
    >>> pareto(pd.DataFrame({
    ...     "p50_us": [2.0, 1.0, 1.5], "bytes": [9, 3, 4], "gzip_bytes": [8, 2, 3],
    ...     "validation_accuracy": [0.9, 0.8, 0.7]}))
    array([ True,  True, False])
    """
    costs = np.column_stack(
        [*(table[column] for column in PREFER.values()), -table["validation_accuracy"]]
    )
    no_worse = np.all(costs[:, None] <= costs, axis=2)
    better = np.any(costs[:, None] < costs, axis=2)
    return np.logical_not(np.any(no_worse & better, axis=0))


def choose(table: "pd.DataFrame", prefer: str, margin: float) -> int:
    """The row of the fastest or smallest file that is accurate enough.

    Of files that are equal in that, the best in the rest is taken.

    Args:
        table: with the columns of `PREFER` and `validation_accuracy`.
        prefer: a name of `PREFER`.
        margin: how far its accuracy may lie below the highest.
    """
    accuracy = table["validation_accuracy"]
    good = table[accuracy >= accuracy.max() - margin - 1e-9]
    costs = [PREFER[prefer], *(c for name, c in PREFER.items() if name != prefer)]
    ascending = [True] * len(costs) + [False]
    ranked = good.sort_values([*costs, "validation_accuracy"], ascending=ascending)
    return int(ranked.index[0])
