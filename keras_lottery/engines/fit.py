"""Trains tickets by `model.fit`, which works for any model that Keras can train."""

import copy
from collections.abc import Callable
from typing import Any

import keras

from keras_lottery.engines.data import pieces
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.evaluation import evaluate, ready
from keras_lottery.engines.record import TrainingRecord
from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.layers.state import read


class FitEngine(Engine):
    """Trains tickets one after another by `model.fit`.

    The arguments are the same as those of `Engine`.
    """

    name = "fit"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Other parts are prepared once and kept. The training data, which may be large
        # and are evaluated only once in a training, are prepared anew each time.
        self._ready = {"train": self.data.parts["train"]}

    def _runner(self, seed: int, record: TrainingRecord) -> Callable[[int, int], None]:
        watch = _Watch(record, seed)
        callbacks = [watch, *copy.deepcopy(self.callbacks)]

        data = self.data

        def run(first: int, last: int) -> None:
            for piece in pieces(first, last, data.steps_per_epoch):
                epoch, until, start, stop = piece
                watch.batches = data.batches(epoch, start, stop, seed)
                self.model.fit(
                    watch.batches,
                    initial_epoch=epoch,
                    epochs=until,
                    steps_per_epoch=data.steps and stop - start,
                    callbacks=callbacks,
                    class_weight=self.class_weight,
                    shuffle=False,
                    verbose=0,
                )
                if self.model.stop_training:
                    record.stopped = True
                    break

        return run

    def _evaluate(self, part: str) -> dict[str, float]:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        # Validation uses the same metric variables as the current epoch.
        metrics = [read(variable) for variable in self.model.metrics_variables]
        if part not in self._ready:
            self._ready[part] = ready(self.model, self.data.parts[part])
        logs = evaluate(self.model, self._ready[part])
        for variable, value in zip(self.model.metrics_variables, metrics, strict=True):
            variable.assign(value)
        return logs


class _Watch(keras.callbacks.Callback):
    """Reports the steps of a training to its record, and their seeds to the backend."""

    def __init__(self, record: TrainingRecord, seed: int) -> None:
        super().__init__()
        self.record = record
        self.seed = seed
        self.epoch_start = record.step
        self.batches: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch_start = self.record.step
        if isinstance(self.batches, keras.utils.PyDataset):
            self.batches.set_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        current().begin_step(self.seed, self.epoch_start + batch)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # The last execution of an epoch may be shorter than `steps_per_execution`.
        epoch_stop = self.epoch_start + self.params["steps"]
        self.record.reached(min(self.epoch_start + batch + 1, epoch_stop))
        if self.record.stopped:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # The user's callbacks read these logs; they come later in the list.
        curve = self.record.curve
        if logs is not None and curve["step"]:
            logs.update({name: curve[name][-1] for name in curve if name != "step"})
