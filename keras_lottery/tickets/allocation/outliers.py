"""Higher densities for layers with more outliers among their scores (OWL)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.counts import (
    keep_among,
    keep_by_layer,
    kept_after,
)
from keras_lottery.tickets.allocation.names import check_scores, included
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores


@dataclass(frozen=True)
class OutlierWeighed(Allocation):
    """Gives layers with more outliers among their scores a higher density.

    D is the share of a layer's scores that are larger than `threshold` times their
    mean. A layer's density is that of the network plus 2λ (D - min D) / (max D -
    min D), minus the mean of this term over the layers, weighted by size. Densities
    therefore lie within 2λ of each other. No density is below zero or above the density
    that the layer still has; the other layers make up for such a limit. Within a layer
    the largest scores are kept.

    It is meant for scores such as those of `"wanda"`.

    Args:
        spread: λ.
        threshold: the multiple of the mean from which a score is an outlier.
        exclude: patterns of weights or layers that are not pruned.

    Reference:
        Yin et al. 2024, "Outlier weighed layerwise sparsity (OWL): a missing secret
        sauce for pruning LLMs to high sparsity", section 3. The layers there are all of
        one size, and the mean is not weighted.

    Example:

    >>> scores = {"a": np.ones(100), "b": np.r_[np.full(10, 50.0), np.ones(90)]}
    >>> masks = Masks.dense({"a": (100,), "b": (100,)})
    >>> [int(m.sum()) for m in OutlierWeighed()(scores, masks, sparsity=0.5).values()]
    [42, 58]
    """

    spread: float = 0.08
    threshold: float = 5.0
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("spread", self.spread, 0, 1)
        checks.number("threshold", self.threshold, above=0)

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        names = included(masks, self.exclude)
        keep = keep_among(names, masks, sparsity)
        left = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
        ratios = {n: self._outliers(np.asarray(scores[n])[masks[n]]) for n in names}
        low, high = min(ratios.values()), max(ratios.values())
        more = {n: (r - low) / (high - low or 1) for n, r in ratios.items()}
        sizes = {name: masks[name].size for name in names}
        wanted = {n: 2 * self.spread * more[n] * sizes[n] for n in names}
        shares = left | _shifted(wanted, sizes, {n: left[n] for n in names}, keep)
        return keep_by_layer(scores, masks, kept_after(masks, sparsity), shares)

    def _outliers(self, score: np.ndarray) -> float:
        return (
            float((score > self.threshold * score.mean()).mean()) if score.size else 0
        )


def _shifted(
    wanted: Mapping[str, float],
    sizes: Mapping[str, int],
    most: Mapping[str, int],
    total: int,
) -> dict[str, float]:
    """Adds one density to all wanted shares so that they sum to the total.

    No share is below zero or above its `most`.
    """

    def at(density: float) -> dict[str, float]:
        return {
            name: min(max(more + density * sizes[name], 0.0), float(most[name]))
            for name, more in wanted.items()
        }

    lowest = -max(more / sizes[name] for name, more in wanted.items())
    density = brentq(lambda d: sum(at(d).values()) - total, lowest, 1.0, xtol=1e-12)
    return at(density)
