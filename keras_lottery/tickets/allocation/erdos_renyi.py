"""Densities of layers as in Erdős-Rényi random graphs (ER and ERK)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.counts import (
    keep_among,
    keep_by_layer,
    kept_after,
)
from keras_lottery.tickets.allocation.names import included
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores


@dataclass(frozen=True)
class ErdosRenyi(Allocation):
    """Prunes large layers more: density is proportional to (sum of dimensions) / size.

    A layer from n to m units has density ε (n + m) / (n m). With `kernel`, the sides of
    a convolution's kernel count as well: ε (n + m + w + h) / (n m w h). ε is chosen to
    give the requested sparsity. A layer whose density would exceed 1, or that has fewer
    weights left than this, stays as it is, and ε rises for the others. Within a layer
    the largest scores are kept.

    The allocation sees shapes only. The kernels of attention projections have three
    dimensions, (width, heads, width of a head), and are treated like those of a Conv1D.
    To avoid this, name them in `exclude`, which leaves them unpruned, or choose another
    allocation.

    Args:
        kernel: whether all dimensions of a weight count, or only the last two.
        exclude: patterns of weights or layers that are not pruned.

    Reference:
        Mocanu et al. 2018, "Scalable training of artificial neural networks with
        adaptive sparse connectivity inspired by network science", equation 1; Evci et
        al. 2020, "Rigging the lottery", section 3, "Erdős-Rényi-Kernel (ERK)".

    Example:

    >>> import numpy as np
    >>> masks = Masks.dense({"conv/kernel": (3, 3, 8, 16), "dense/kernel": (100, 10)})
    >>> scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    >>> pruned = ErdosRenyi(kernel=True)(scores, masks, sparsity=0.9)
    >>> [int(mask.sum()) for mask in pruned.values()]
    [46, 169]
    """

    kernel: bool = True
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.flag("kernel", self.kernel)

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        names = included(masks, self.exclude)
        keep = keep_among(names, masks, sparsity)
        left = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
        shares = left | _fill(
            keep,
            {name: self._edges(masks[name].shape) for name in names},
            {name: left[name] for name in names},
        )
        return keep_by_layer(scores, masks, kept_after(masks, sparsity), shares)

    def _edges(self, shape: tuple[int, ...]) -> float:
        """Returns how many weights a layer keeps at ε = 1."""
        sides = shape if self.kernel else shape[-2:]
        return math.prod(shape) * sum(sides) / math.prod(sides)


def _fill(
    total: int, weights: Mapping[str, float], most: Mapping[str, int]
) -> dict[str, float]:
    """Divides a total in proportion to the weights, no share above its `most`."""
    shares: dict[str, float] = {}
    while len(shares) < len(weights):
        rest = {name: w for name, w in weights.items() if name not in shares}
        scale = (total - sum(shares.values())) / sum(rest.values())
        full = {name: most[name] for name, w in rest.items() if scale * w > most[name]}
        if not full:
            return shares | {name: scale * w for name, w in rest.items()}
        shares |= full
    return shares
