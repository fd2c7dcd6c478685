"""How far weights move in training, inside and outside a ticket."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.study.analysis.kernels import masks_of

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = {
    "initial": lambda initial, final: initial,
    "distance": lambda initial, final: np.abs(final - initial),
    "growth": lambda initial, final: np.abs(final) - np.abs(initial),
}
"""The quantities of a weight: w_0, |w_T - w_0| and |w_T| - |w_0|."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def weight_movement(initial: State, final: State, masks: Masks) -> "pd.DataFrame":
    """How far weights moved in training, inside and outside a ticket.

    For a stored search with `dense = search.ticket(0)` and
    `ticket = search.ticket(level)`, the call
    `weight_movement(dense.weights, dense.trained, ticket.masks)` compares the weights
    that the ticket keeps with the others in the dense network's training. (In the
    ticket's own training, the others are zero.)

    Args:
        initial, final: states before and after a training.
        masks: the masks of the ticket.

    Returns:
        Three rows for each weight and part (`"kept"`, `"pruned"`), and for all weights
        as `"total"`. Each row describes one `quantity` (`"initial"`, w_0; `"distance"`,
        |w_T - w_0|; or `"growth"`, |w_T| - |w_0|) by its `count`, `mean`, `std`, and
        the quantiles `q05`, `q25`, `q50`, `q75`, `q95`, which are NaN if the part has
        no weights.

    Raises:
        ValueError: if the states and masks do not fit each other.

    Reference:
        Frankle & Carbin, [The Lottery Ticket Hypothesis](
        https://arxiv.org/abs/1803.03635), 2019, appendix F ("examining winning
        tickets").

    Example:

    >>> initial = {"hidden/kernel": np.array([[1.0, -2.0]])}
    >>> final = {"hidden/kernel": np.array([[4.0, -1.0]])}
    >>> masks = Masks({"hidden/kernel": [[True, False]]})
    >>> table = weight_movement(initial, final, masks)
    >>> table.query("weight == 'hidden/kernel'")[["part", "quantity", "mean"]]
         part  quantity  mean
    0    kept   initial   1.0
    1    kept  distance   3.0
    2    kept    growth   3.0
    3  pruned   initial  -2.0
    4  pruned  distance   1.0
    5  pruned    growth  -1.0
    """
    import pandas as pd

    rows = []
    for labels, values in _values(initial, final, masks):
        empty = not values.size
        quantiles = np.full(len(QUANTILES), np.nan)
        if not empty:
            quantiles = np.quantile(values, QUANTILES)
        rows.append(
            {
                **labels,
                "count": values.size,
                "mean": np.nan if empty else values.mean(dtype=np.float64),
                "std": np.nan if empty else values.std(dtype=np.float64),
                **{
                    f"q{round(100 * q):02}": quantile
                    for q, quantile in zip(QUANTILES, quantiles, strict=True)
                },
            }
        )
    return pd.DataFrame(rows)


def weight_histograms(
    initial: State, final: State, masks: Masks, bins: int = 50
) -> "pd.DataFrame":
    """Histograms of the distributions that `weight_movement` summarises.

    The errors are the same as those of `weight_movement`.

    Args:
        initial, final, masks: same as `weight_movement`.
        bins: the number of bins, which have equal width. The kept and the pruned
            weights of a layer have the same bins.

    Returns:
        A row for each bin: `weight`, `part`, `quantity`, the bin's ends `low` and
        `high`, and `count`.

    Example:

    >>> initial = {"hidden/kernel": np.array([[1.0, -2.0]])}
    >>> final = {"hidden/kernel": np.array([[4.0, -1.0]])}
    >>> masks = Masks({"hidden/kernel": [[True, False]]})
    >>> table = weight_histograms(initial, final, masks, bins=2)
    >>> of = "weight == 'hidden/kernel' and quantity == 'distance'"
    >>> table.query(of)[["part", "low", "high", "count"]].values.tolist()
    [['kept', 1.0, 2.0, 0], ['kept', 2.0, 3.0, 1],
     ['pruned', 1.0, 2.0, 1], ['pruned', 2.0, 3.0, 0]]
    """
    import pandas as pd

    checks.count("bins", bins, 1, 1_000_000)
    everything = list(_values(initial, final, masks))
    ends: dict[tuple[str, str], np.ndarray] = {}
    for labels, _ in everything:
        layer = labels["weight"], labels["quantity"]
        ends[layer] = np.histogram_bin_edges(
            np.concatenate(
                [v for of, v in everything if (of["weight"], of["quantity"]) == layer]
            ),
            bins,
        )
    tables = []
    for labels, values in everything:
        edges = ends[labels["weight"], labels["quantity"]]
        counts = np.histogram(values, edges)[0]
        columns = {"low": edges[:-1], "high": edges[1:], "count": counts}
        tables.append(pd.DataFrame({**labels, **columns}))
    return pd.concat(tables, ignore_index=True)


def _values(
    initial: State, final: State, masks: Masks
) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """Every quantity of the kept and the pruned weights, by layer and in total."""
    keras_checks.masks("masks", masks)
    masks = masks_of(initial=initial, final=final, masks=masks)
    for weight in [*masks, "total"]:
        names = list(masks) if weight == "total" else [weight]
        for part in ("kept", "pruned"):
            chosen = {n: masks[n] if part == "kept" else ~masks[n] for n in names}
            before, after = (
                np.concatenate([state[name][chosen[name]] for name in names])
                for state in (initial, final)
            )
            for quantity, of in QUANTITIES.items():
                labels = {"weight": weight, "part": part, "quantity": quantity}
                yield labels, of(before, after)
