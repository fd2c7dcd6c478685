"""Callbacks that change masks between the steps of `fit`."""

import warnings

from keras_lottery.in_fit.callbacks.common import (
    Configured,
    InFit,
)
from keras_lottery.keras_bridge.internals.optimizers import steps_done
from keras_lottery.keras_bridge.internals.patches import at_last
from keras_lottery.keras_bridge.layers import get_sparsity


class MaskUpdates(Configured, InFit):
    """Changes the masks of a model before some of its training steps.

    A step is a batch. Steps are counted by the optimizer, as for a learning-rate
    schedule, so a second `fit` resumes where the first one stopped; with
    `gradient_accumulation_steps=n`, n of them make one update of the weights. With
    `steps_per_execution`, masks change between executions, and only once: as the last
    step that was due requires.

    Masks are variables of the model, so a callback that restores the weights of an
    earlier step also restores their masks. If the sparsity is then lower, the callback
    warns.

    A subclass defines when masks change (`is_update_step`) and how (`update`).
    """

    end_step: int

    def __init__(self) -> None:
        super().__init__()
        self._epoch_start = self._step = self._next = 0
        self._updated: int | None = None
        self._sparsity_left: float | None = None

    def is_update_step(self, step: int) -> bool:
        """Whether masks change before the step number `step`."""
        raise NotImplementedError

    def update(self, step: int) -> None:
        """Changes the masks of `self.model` to those required at a step."""
        raise NotImplementedError

    def start(self) -> None:
        """Reads the optimizer's step. A subclass prunes and checks the model here."""
        self._step = steps_done(self.model.optimizer)
        # If the optimizer is past the schedule, its last step is due at once.
        self._next = min(self._step, self.end_step)
        self._updated = self._sparsity_left = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch_start = self._step

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        # One execution may hold several steps; only the last one that is due counts.
        due = [s for s in range(self._next, self._step + 1) if self.is_update_step(s)]
        self._next = self._step + 1
        if due:
            self._update(due[-1])

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step = self._epoch_start + batch + 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # The last execution of an epoch may hold fewer steps than the others.
        self._step = steps_done(self.model.optimizer)

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._next <= self.end_step <= self._step:
            if self.is_update_step(self.end_step):
                self._update(self.end_step)
            self._next = self._step + 1
        at_last(self, self._check_sparsity)

    def _update(self, step: int) -> None:
        self.update(step)
        self._updated = step
        self._sparsity_left = get_sparsity(self.model)

    def _check_sparsity(self) -> None:
        sparsity = get_sparsity(self.model)
        if self._sparsity_left is not None and sparsity < self._sparsity_left:
            warnings.warn(
                "Another callback has restored the weights and masks of an earlier "
                f"step: the sparsity is {sparsity:.4f}, not the "
                f"{self._sparsity_left:.4f} that {type(self).__name__} had reached. "
                "Leave out `restore_best_weights`, or begin EarlyStopping after "
                f"end_step={self.end_step} (`start_from_epoch`).",
                stacklevel=2,
            )
