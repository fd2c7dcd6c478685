"""Which tickets are tried, and which file is chosen."""

from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.search.stored import StoredSearch

if TYPE_CHECKING:
    import pandas as pd

PREFER = {"latency": "p50_us", "size": "bytes", "download": "gzip_bytes"}
"""What a file may be best in, and the column of it, of which less is better."""


def best_tickets(search: StoredSearch, tolerance: float) -> list[tuple[int, int]]:
    """Levels and replicates to try: the dense network first, then the best tickets.

    These are the sparsest ticket that is as accurate as the dense network, within the
    tolerance, and the most accurate one; both by the validation data at the end of
    training, which is where the exported weights are from.

    Raises:
        ValueError: if no ticket was trained yet.
    """
    table = search.results()
    table = table[table["variant"] == "ticket"] if len(table) else table
    if not len(table) or not (table["level"] > 0).any():
        raise ValueError(
            f"There is no ticket in '{search.store.directory}': run its search first."
        )
    accuracy = table.groupby("level")["final_val_accuracy"].mean()
    tickets = accuracy[accuracy.index > 0]
    levels = {int(tickets.idxmax())}
    if 0 in accuracy.index:
        good = tickets[tickets >= accuracy[0] - tolerance]
        levels |= {0, *([int(good.index.max())] if len(good) else [])}
    chosen = []
    for level in sorted(levels):
        rows = table[table["level"] == level]
        best = rows["final_val_accuracy"].idxmax()
        chosen.append((level, int(rows.loc[best, "replicate"])))
    return chosen


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


def choose(table: "pd.DataFrame", prefer: str, tolerance: float) -> int:
    """The row of the fastest or smallest file that is accurate enough.

    Of files that are equal in that, the best in the rest is taken.

    Args:
        table: with the columns of `PREFER` and `validation_accuracy`.
        prefer: a name of `PREFER`.
        tolerance: how far its accuracy may lie below the highest.
    """
    accuracy = table["validation_accuracy"]
    good = table[accuracy >= accuracy.max() - tolerance - 1e-9]
    costs = [PREFER[prefer], *(c for name, c in PREFER.items() if name != prefer)]
    ascending = [True] * len(costs) + [False]
    ranked = good.sort_values([*costs, "validation_accuracy"], ascending=ascending)
    return int(ranked.index[0])
