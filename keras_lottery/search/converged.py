"""When to stop looking for masks."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune_snapshot
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Allocation
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import Grouping, Weights

TOLERANCE = 1 / 3
LOOKS = 10
"""So often in an epoch, at most, masks are looked at."""


@dataclass(kw_only=True)
class Converged:
    """Tells whether the masks that a training would give have converged.

    It is asked at every validation: of the weights that would be pruned now, which
    share would have been kept one epoch earlier? A training thus sees all data at least
    twice, however often it validates. The share never falls to zero: weights near the
    threshold keep changing places, which does no harm.

    Args:
        masks: the masks of the training.
        initial, rewind_point: the states that a criterion may compare with.
        sparsity: the sparsity of the masks to find.
        criterion, allocation, grouping: how the masks are found.
        validations: the number of validations in an epoch.
        tolerance: the share of newly pruned weights up to which masks count as
            converged.

    Reference:
        You et al. 2020, "Drawing early-bird tickets", section 4 (mask distance).
    """

    masks: Masks
    initial: State
    rewind_point: State
    sparsity: Sparsity
    criterion: Criterion
    allocation: Allocation
    grouping: Grouping = field(default_factory=Weights)
    validations: int = 1
    tolerance: float = TOLERANCE
    _asked: int = field(default=0, init=False)
    _before: deque[Masks] = field(default_factory=deque, init=False)

    def snapshot(self, state: State) -> Snapshot:
        """The snapshot that a criterion sees in training: without model and data."""
        # The same random numbers each time, so that draws do not change the masks.
        rng = np.random.default_rng(0)
        states = state, self.initial, self.rewind_point
        return Snapshot(self.masks, *states, rng, None, grouping=self.grouping)

    def __call__(self, state: State) -> bool:
        self._asked += 1
        step = max(1, self.validations // LOOKS)
        if self._asked % step:
            return False
        how = self.criterion, self.allocation
        masks, _ = prune_snapshot(self.snapshot(state), self.sparsity, *how)
        self._before.append(masks)
        if len(self._before) <= -(-self.validations // step):
            return False
        epoch_ago = self._before.popleft()
        pruned = self.masks.kept - masks.kept
        moved = sum(int(np.sum(epoch_ago[name] & ~masks[name])) for name in masks)
        return moved <= self.tolerance * pruned
