"""The overlap of two tickets' masks."""

from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.keras_bridge import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    import pandas as pd


def mask_overlap(a: Masks | Ticket, b: Masks | Ticket) -> "pd.DataFrame":
    """How many weights two tickets share, compared with random masks.

    Random masks keep as many weights in each layer: two masks that keep k and m of n
    weights share k m / n of them on average.

    Args:
        a, b: tickets of one network, or their masks.

    Returns:
        A row for each weight, and `"total"` for all: `weight`, `size`, `kept_a`,
        `kept_b`, `shared` and `shared_by_chance`; `jaccard`, the number of shared
        weights divided by the number that either ticket keeps; and `jaccard_by_chance`,
        the same for the mean number that random masks share. Both are NaN if neither
        ticket keeps any weight.

    Raises:
        ValueError: if the masks do not belong to one network.

    Example:

    >>> a = Masks({"hidden/kernel": [True, True, False, False]})
    >>> b = Masks({"hidden/kernel": [True, False, True, False]})
    >>> mask_overlap(a, b).query("weight == 'total'").T
                              1
    weight                total
    size                      4
    kept_a                    2
    kept_b                    2
    shared                    1
    shared_by_chance        1.0
    jaccard            0.333333
    jaccard_by_chance  0.333333
    """
    import pandas as pd

    a, b = (each.masks if isinstance(each, Ticket) else each for each in (a, b))
    checks.masks("a", a)
    checks.masks("b", b)
    shapes_a, shapes_b = (
        {name: mask.shape for name, mask in masks.items()} for masks in (a, b)
    )
    if shapes_a != shapes_b or not shapes_a:
        raise ValueError(
            "Expected masks of one network. Received: masks of shapes "
            f"{shapes_a} and {shapes_b}"
        )
    rows = [
        {
            "weight": name,
            "size": a[name].size,
            "kept_a": int(np.count_nonzero(a[name])),
            "kept_b": int(np.count_nonzero(b[name])),
            "shared": int(np.count_nonzero(a[name] & b[name])),
        }
        for name in a
    ]
    table = pd.DataFrame(rows)
    table["shared_by_chance"] = table["kept_a"] * table["kept_b"] / table["size"]
    total = {"weight": "total", **table.drop(columns="weight").sum()}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)
    counts = ["size", "kept_a", "kept_b", "shared"]
    table[counts] = table[counts].astype(int)
    for shared in ("shared", "shared_by_chance"):
        either = table["kept_a"] + table["kept_b"] - table[shared]
        table[shared.replace("shared", "jaccard")] = table[shared] / either
    return table
