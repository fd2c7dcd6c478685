"""Soft filter pruning, where zeroed filters may grow back until training ends."""

from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.common import Configured, InFit
from keras_lottery.keras_bridge.internals.patches import at_last
from keras_lottery.keras_bridge.layers import get_masks, get_state
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import (
    Sparsity,
    check_by_layer,
    chosen,
    masks_after,
    of_network,
    prune,
    rehearse,
)
from keras_lottery.tickets import grouping
from keras_lottery.tickets.allocation import AllocationLike
from keras_lottery.tickets.criteria import CriterionLike


@keras.saving.register_keras_serializable(package="keras_lottery")
class SoftFilterPruning(Configured, InFit):
    """Sets the kernels of the lowest-scoring filters to zero after every epoch.

    The zeroed kernels still have gradients: a filter that was wrongly chosen grows
    back, and another one is chosen after the next epoch. When training ends, the
    filters with the lowest scores are masked, together with all weights that read them;
    `compact` removes them.

    Biases and normalisation stay as they are until training ends, so that a zeroed
    filter still returns a constant. Masking the filter removes this constant and
    therefore changes the outputs: train for a few more epochs without the callback, or
    call `recalibrate`.

    Args:
        sparsity: the share of filters to prune, or a share for each layer by pattern of
            names, see `prune`.
        criterion: how filters are scored: a name of `filter_criteria` or `criteria`, or
            a function; `"fpgm"` is He et al. 2019.
        allocation, data, seed: same as `prune`; by default each layer loses the same
            share.
        every: the number of epochs between selections.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or has no filters to prune.

    Reference:
        He et al. 2018, "Soft filter pruning for accelerating deep convolutional neural
        networks", algorithm 1.

    Example:

    >>> SoftFilterPruning(0.3, "fpgm").get_config()["sparsity"]
    0.3
    """

    def __init__(
        self,
        sparsity: Sparsity,
        criterion: CriterionLike = "l2",
        allocation: AllocationLike | None = None,
        data: Any = None,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_by_layer("sparsity", sparsity, allocation)
        chosen(criterion, allocation, "filter")
        checks.count("every", every, 1)
        checks.seed("seed", seed)
        self.sparsity = sparsity
        self.criterion = criterion
        self.allocation = allocation
        self.data = data
        self.every = every
        self.seed = seed

        self._kept: Masks | None = None
        self._zeroed: dict[str, np.ndarray] = {}

    def start(self) -> None:
        """Checks that the model can be pruned in this way."""
        self._kept = None
        masks = trained_masks(self.model)
        left = grouping.get("filter").of(self.model, masks).left(masks)
        sparsity, allocation = of_network(self.sparsity, self.allocation, left)
        how = {**self._how(0), "allocation": allocation}
        rehearse(self.model, sparsity, **how)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._kept = None
        if (epoch + 1) % self.every:
            return
        after = masks_after(self.model, self.sparsity, **self._how(epoch))
        before = get_masks(self.model)
        units: Any = grouping.get("filter").of(self.model, trained_masks(self.model))
        state, variables = get_state(self.model), named_variables(self.model)
        self._zeroed = units.makers(before, after)
        for name, entries in self._zeroed.items():
            variables[name].assign(np.where(entries, 0, state[name]))
        self._kept = after

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        self._finish()
        at_last(self, self._finish)

    def _finish(self) -> None:
        """Prunes the filters that are zero, or else those with the lowest scores."""
        how = self._how(0)
        state = get_state(self.model)
        if (kept := self._kept) is not None and not any(
            state[name][entries].any() for name, entries in self._zeroed.items()
        ):
            # By some criteria zeroed filters tie with others, and some are random.
            how["criterion"] = lambda snapshot: {
                name: kept[name].astype("float32") for name in snapshot.masks
            }
        prune(self.model, self.sparsity, **how)

    def _how(self, epoch: int) -> dict[str, Any]:
        return {
            "criterion": self.criterion,
            "allocation": self.allocation,
            "granularity": "filter",
            "data": self.data,
            "seed": self.seed + epoch,
            "frozen": False,
        }
