"""Numbers from tables of results, one for each replicate, to be compared in pairs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

ACCURACY = "early_stop_test_accuracy"
STOP = "early_stop_step"
FINAL = "final_test_accuracy"
LABELS = {
    ACCURACY: "test accuracy at the early stop (%)",
    FINAL: "test accuracy at the end (%)",
}
"""The accuracy of each column, in words."""

NEAR = 0.1
"""How far a level's density may be from the requested one, as a share of it."""


def join(tables: Mapping[str, "pd.DataFrame"]) -> "pd.DataFrame":
    """Joins tables of results. Variants of the first table keep their names.

    Args:
        tables: by label. From the second one on, the ticket is called `<label>`, and
            controls are called `<label>_<control>`.
    """
    import pandas as pd

    first = next(iter(tables))
    parts = []
    for label, table in tables.items():
        if label != first:
            names = {v: f"{label}_{v}" for v in table["variant"]} | {"ticket": label}
            table = table.assign(variant=table["variant"].map(names))
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def summarise(
    table: "pd.DataFrame", by: str | None = None, column: str = ACCURACY
) -> "pd.DataFrame":
    """Means by level and variant, for people to read.

    Args:
        table: a table of results.
        by: another column by which rows are grouped.
        column: which accuracy.

    Returns:
        A row for each: `density` in %, `accuracy` in % and its standard deviation over
        the trainings, the step of the `early_stop`, and the number of `trainings`. The
        accuracy at the end of training is called `final_accuracy`.
    """
    accuracy = "final_accuracy" if column == FINAL else "accuracy"
    keys = [*([by] if by else []), "variant", "level"]
    groups = table.groupby(keys, sort=False)
    means = groups[["density", column, STOP]].mean()
    summary = means.assign(
        density=(100 * means["density"]).round(2),
        deviation=(100 * groups[column].std()).round(2),
        early_stop=means[STOP].round().astype("Int64"),
        trainings=groups.size(),
        **{accuracy: (100 * means[column]).round(2)},
    )
    columns = ["density", accuracy, "deviation", "early_stop", "trainings"]
    return summary[columns].reset_index().sort_values(keys, ignore_index=True)


def at(
    table: "pd.DataFrame",
    density: float,
    column: str = ACCURACY,
    variant: str = "ticket",
) -> np.ndarray:
    """A column at a density: one value per replicate, the mean of its trials.

    The level's density may differ from the requested one by a tenth of it. If there is
    no such level, or the requested density is NaN, the result is one NaN.

    Example:

    >>> import pandas as pd
    >>> table = pd.DataFrame({"density": [1.0, 0.21, 0.21], "variant": "ticket",
    ...     "replicate": [0, 0, 1], "trial": 0, ACCURACY: [0.97, 0.98, 0.99]})
    >>> at(table, 0.2)
    array([0.98, 0.99])
    >>> at(table, 0.5), at(table, np.nan)
    (array([nan]), array([nan]))
    """
    rows = table[table["variant"] == variant]
    away = (rows["density"] / density - 1).abs().to_numpy()
    if not len(rows) or not away.min() <= NEAR:
        return np.array([np.nan])
    nearest = rows["density"].iloc[int(away.argmin())]
    rows = rows[np.isclose(rows["density"], nearest)]
    return rows.groupby("replicate")[column].mean().to_numpy()


def gain(
    table: "pd.DataFrame",
    density: float,
    variant: str = "ticket",
    over: str = "dense",
    column: str = ACCURACY,
) -> np.ndarray:
    """Percentage points of accuracy by which a variant beats another, by replicate.

    Args:
        table: a table of results.
        density: that of the level, see `at`.
        variant: which variant.
        over: another variant at the same level, or `"dense"`.
        column: which accuracy.
    """
    other = ("ticket", 1.0) if over == "dense" else (over, density)
    return 100 * (
        at(table, density, column, variant) - at(table, other[1], column, other[0])
    )


def sooner(
    table: "pd.DataFrame", density: float, variant: str = "ticket", over: str = "dense"
) -> np.ndarray:
    """The percentage of steps by which a variant stops sooner than another.

    Arguments are the same as in `gain`.
    """
    other = ("ticket", 1.0) if over == "dense" else (over, density)
    return 100 * (
        1 - at(table, density, STOP, variant) / at(table, other[1], STOP, other[0])
    )
