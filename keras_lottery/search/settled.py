"""When to stop looking for masks: they settle long before the training ends."""

from dataclasses import dataclass, field

import numpy as np

from keras_lottery.allocation import Allocation
from keras_lottery.criteria import Criterion
from keras_lottery.layers import State
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune_snapshot
from keras_lottery.ticket import Snapshot

TOLERANCE = 0.05


@dataclass
class Settled:
    """Whether the masks that a training would give have stopped moving.

    It is asked at every validation: of the weights that pruning now would take away,
    which share would have stayed had it pruned at the validation before?

    Args:
        masks: those that are trained with.
        initial, rewind_point: the states that a criterion may compare with.
        sparsity: of the masks to find.
        criterion, allocation: how they are found.
        tolerance: the share of newly pruned weights up to which masks count as settled.

    Reference:
        You et al. 2020, "Drawing early-bird tickets", section 4 (mask distance).
    """

    masks: Masks
    initial: State
    rewind_point: State
    sparsity: float
    criterion: Criterion
    allocation: Allocation
    tolerance: float = TOLERANCE
    _previous: Masks | None = field(default=None, init=False)

    def __call__(self, state: State) -> bool:
        snapshot = Snapshot(
            self.masks,
            state,
            self.initial,
            self.rewind_point,
            # The same random numbers each time: draws do not move the masks.
            np.random.default_rng(0),
            None,
        )
        masks, _ = prune_snapshot(
            snapshot, self.sparsity, self.criterion, self.allocation
        )
        previous, self._previous = self._previous, masks
        if previous is None:
            return False
        pruned = self.masks.kept - masks.kept
        moved = sum(int(np.sum(previous[name] & ~masks[name])) for name in masks)
        return moved <= self.tolerance * pruned
