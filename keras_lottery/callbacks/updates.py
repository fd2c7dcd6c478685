"""Callbacks that change masks between the steps of `fit`."""

import inspect
from typing import Any, Self

import keras

from keras_lottery.callbacks.common import check_masked, check_named, steps_done

NAMED = ("criterion", "allocation")


class MaskUpdates(keras.callbacks.Callback):
    """Changes the masks of a model before some of the optimizer's updates.

    Steps are counted by the optimizer, so a second `fit` goes on where the first one
    stopped. With `steps_per_execution`, masks change between executions: once, as the
    last step asks that was due.

    A subclass says when (`is_update_step`) and what (`update`), and keeps its
    arguments in attributes of their names.
    """

    end_step: int

    def __init__(self) -> None:
        super().__init__()
        self._epoch_start = self._step = self._next = 0

    def is_update_step(self, step: int) -> bool:
        """Whether masks change before the optimizer's update number `step`."""
        raise NotImplementedError

    def update(self, step: int) -> None:
        """Changes the masks of `self.model` as they have to be at a step."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict | None = None) -> None:
        check_masked(self)
        self._step = steps_done(self.model)
        # A schedule that lies behind the optimizer is caught up with at once.
        self._next = min(self._step, self.end_step)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch_start = self._step

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        # One execution may hold several steps: only the last that was due counts.
        due = [s for s in range(self._next, self._step + 1) if self.is_update_step(s)]
        self._next = self._step + 1
        if due:
            self.update(due[-1])

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step = self._epoch_start + batch + 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # The last execution of an epoch may be shorter than its number says.
        self._step = steps_done(self.model)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._next <= self.end_step <= self._step:
            if self.is_update_step(self.end_step):
                self.update(self.end_step)
            self._next = self._step + 1

    def get_config(self) -> dict[str, Any]:
        """The arguments, but for the data.

        Raises:
            ValueError: if the criterion or the allocation is not given by name.
        """
        names = [*inspect.signature(type(self)).parameters]
        check_named(self, *(name for name in names if name in NAMED))
        return {name: getattr(self, name) for name in names if name != "data"}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The callback of a config, without data."""
        return cls(**config)
