"""One ranking for all layers that have the same shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.counts import keep_among, largest_remainder
from keras_lottery.tickets.allocation.names import check_scores, included
from keras_lottery.tickets.allocation.network import least_of, ranked
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores


@dataclass(frozen=True)
class Isomorphic(Allocation):
    """Ranks weights only against those of layers of the same shape.

    Each shape gets the same sparsity, and the scores decide how it is divided among the
    layers of that shape. The scores of layers of different shapes therefore need not be
    comparable. For whole filters, layers with the same number of filters are ranked
    together.

    Args:
        floor: the lowest density of a layer, as a fraction of the density of its shape;
            see `Global`. With 0 the ranking alone decides, as in the paper.
        exclude: patterns of weights or layers that are not pruned.

    Reference:
        Fang et al. 2024, "Isomorphic pruning for vision models", section 3.

    Example:

    >>> masks = Masks.dense({"a": (2, 2), "b": (2, 2), "c": (4,)})
    >>> scores = {"a": np.full((2, 2), 9.0), "b": np.ones((2, 2)), "c": np.arange(4.0)}
    >>> [int(mask.sum()) for mask in Isomorphic()(scores, masks, 0.5).values()]
    [3, 1, 2]
    """

    floor: float = 0.1
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "It is a share of the density of the layers of one shape."
        checks.fraction("floor", self.floor, one=True, remedy=remedy)

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        names = included(masks, self.exclude)
        keep = keep_among(names, masks, sparsity)
        shapes: dict[str, list[str]] = {}
        for name in names:
            shapes.setdefault(str(masks[name].shape), []).append(name)
        size = {s: sum(masks[n].size for n in some) for s, some in shapes.items()}
        alive = {
            s: sum(int(np.count_nonzero(masks[n])) for n in some)
            for s, some in shapes.items()
        }
        density = keep / sum(size.values())
        shares = {s: min(density * size[s], alive[s]) for s in shapes}
        counts = largest_remainder(keep, shares, alive)
        kept = dict(masks)
        for shape, some in shapes.items():
            own = {name: masks[name] for name in some}
            least = least_of(own, counts[shape], self.floor)
            kept |= ranked(scores, own, counts[shape], least)
        return Masks(kept)
