"""Callbacks that change masks between the steps of `fit`."""

from keras_lottery.callbacks.common import Configured, check_masked, steps_done


class MaskUpdates(Configured):
    """Changes the masks of a model before some of the optimizer's updates.

    Steps are counted by the optimizer, so a second `fit` goes on where the first one
    stopped. With `steps_per_execution`, masks change between executions: once, as the
    last step asks that was due.

    A subclass says when (`is_update_step`) and what (`update`).
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
