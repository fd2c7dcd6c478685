"""The weight correlation: how many of a net's largest weights stay the largest."""

from typing import TYPE_CHECKING

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.study.analysis.kernels import masks_of
from keras_lottery.tickets.allocation import largest

if TYPE_CHECKING:
    import pandas as pd


def weight_correlation(
    before: State, after: State, p: float, masks: Masks | None = None
) -> "pd.DataFrame":
    """The correlation indicator R_p: the share of the largest weights that agree.

    R_p = Σ_l |T_p(θ_l) ∩ T_p(θ'_l)| / Σ_l |T_p(θ_l)|, where T_p are the positions of
    the share p of a layer's weights that are largest in magnitude. It is 1 for equal
    weights, and about p for independent ones.

    Args:
        before, after: two states of one network, such as those before and after
            training.
        p: the share, in (0, 1]. The number of weights in each layer is rounded, and at
            least 1; of equal magnitudes, the earlier position counts.
        masks: the masks of the remaining weights, of which p is a share. By default,
            all weights of every array of two or more dimensions in `before`.

    Returns:
        A row for each weight, and `"total"` for all: `weight`, `size` (the number of
        remaining weights), `top` (|T_p|), `shared`, and `correlation` (R_p; NaN if no
        weight remains).

    Raises:
        ValueError: if p is out of range, or the states do not fit each other.

    Reference:
        Liu et al., [Lottery ticket preserves weight correlation](
        https://arxiv.org/abs/2102.11068), 2021, equation 1.

    Example:

    >>> before = {"hidden/kernel": np.array([[4.0, -3.0, 2.0, 1.0]])}
    >>> after = {"hidden/kernel": np.array([[4.0, 0.5, -2.0, 1.0]])}
    >>> table = weight_correlation(before, after, p=0.5)
    >>> table[["weight", "top", "shared", "correlation"]].values.tolist()
    [['hidden/kernel', 2, 1, 0.5], ['total', 2, 1, 0.5]]
    """
    import pandas as pd

    checks.fraction("p", p, zero=False, one=True)
    masks = masks_of(before=before, after=after, masks=masks)
    rows = []
    for name, mask in masks.items():
        size = int(np.count_nonzero(mask))
        top = max(round(p * size), min(size, 1))
        of_before, of_after = (
            largest({name: np.abs(state[name])}, {name: mask}, top)[name]
            for state in (before, after)
        )
        shared = int(np.count_nonzero(of_before & of_after))
        rows.append({"weight": name, "size": size, "top": top, "shared": shared})
    table = pd.DataFrame(rows)
    sums = table[["size", "top", "shared"]].sum()
    table = pd.concat([table, pd.DataFrame([{"weight": "total", **sums}])])
    table["correlation"] = table["shared"] / table["top"]
    return table.reset_index(drop=True)
