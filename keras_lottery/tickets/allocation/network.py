"""One ranking of all the weights of the network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.counts import keep_among
from keras_lottery.tickets.allocation.names import check_scores, included
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores, largest


@dataclass(frozen=True)
class Global(Allocation):
    """Keeps the weights with the largest scores, whichever layer they are in.

    The floor is an exception. A ranking of all weights can empty a layer whose scores
    are small, and the network's outputs would then be constant. If no layer falls below
    the floor, the floor changes nothing.

    Args:
        exclude: patterns of weights or layers that are not pruned.
        floor: the lowest density of a layer, as a fraction of the density of all layers
            that are not excluded: at `sparsity=0.9` and a floor of 0.1, each layer
            keeps at least 1 % of its weights. 0 gives a purely global ranking, as in
            the papers.

    Reference:
        Tanaka et al. 2020, "Pruning neural networks without any data by iteratively
        conserving synaptic flow", section 3, on the collapse of layers.

    Example:

    >>> import numpy as np
    >>> masks = Masks.dense({"conv": (10, 10), "gate": (20,)})
    >>> scores = {"conv": np.full((10, 10), 2.0), "gate": np.ones(20)}
    >>> [int(m.sum()) for m in Global()(scores, masks, 0.5).values()]
    [59, 1]
    >>> [int(m.sum()) for m in Global(floor=0)(scores, masks, 0.5).values()]
    [60, 0]
    """

    exclude: Sequence[str] = ()
    floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "It is a share of the network's density."
        checks.fraction("floor", self.floor, one=True, remedy=remedy)

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        names = included(masks, self.exclude)
        keep = keep_among(names, masks, sparsity)
        alive = {name: masks[name] for name in names}
        chosen = ranked(scores, alive, keep, least_of(alive, keep, self.floor))
        return Masks({name: chosen.get(name, mask) for name, mask in masks.items()})


def least_of(
    alive: Mapping[str, np.ndarray], keep: int, floor: float
) -> dict[str, int]:
    """Returns the lowest number of weights that each layer may keep."""
    share = floor * keep / sum(mask.size for mask in alive.values())
    left = {name: int(np.count_nonzero(mask)) for name, mask in alive.items()}
    sizes = {name: mask.size for name, mask in alive.items()}
    # The product may be off by a rounding error.
    up = {n: min(math.ceil(share * sizes[n] - 1e-6), left[n]) for n in alive}
    if sum(up.values()) <= keep:
        return up
    # Rounded up, the numbers sum to more than `keep`.
    return {n: min(math.floor(share * sizes[n] + 1e-6), left[n]) for n in alive}


def ranked(
    scores: Scores,
    alive: Mapping[str, np.ndarray],
    keep: int,
    least: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Marks the `keep` largest scores, but no fewer than `least` in each layer."""
    chosen = largest(scores, alive, keep)
    short = [n for n, marks in chosen.items() if np.count_nonzero(marks) < least[n]]
    if not short:
        return chosen
    for name in short:
        chosen |= largest(scores, {name: alive[name]}, least[name])
    rest = {name: mask for name, mask in alive.items() if name not in short}
    return chosen | ranked(scores, rest, keep - sum(least[n] for n in short), least)
