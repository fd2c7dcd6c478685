"""Trains tickets by `model.fit`: works for whatever Keras can train."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.data import Batches, Data, is_tf_dataset, pieces
from keras_lottery.engines.learning_rate import OffsetSchedule
from keras_lottery.layers import get_state, set_state
from keras_lottery.layers.state import State, read
from keras_lottery.ticket import Ticket

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Training:
    """What training a ticket gave.

    Args:
        final: the state at the end.
        rewind_point: the state at the rewind point; empty if training did not pass it.
        curve: lists of equal length: `step`, `val_loss`, `val_accuracy`.
        metrics: numbers of the early stop and of the end, as in the results' table.
    """

    final: State
    rewind_point: State
    curve: dict[str, list[float]]
    metrics: dict[str, float]


class FitEngine:
    """Trains tickets one after another in one compiled model.

    Args:
        model: a compiled masked model. It is compiled once; its variables, masks and
            optimizer are set anew for each ticket.
        data: what to train and judge on.
        steps: length of the dense training, in optimizer steps.
        rewind_step: the step whose state is kept, in trainings that start before it.
        eval_freq: steps from one validation to the next, or `"epoch"`.
        callbacks: Keras callbacks, copied for each training.
        class_weight: as of `fit`.

    Raises:
        ValueError: if the model reports no accuracy.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        steps: int,
        rewind_step: int = 0,
        eval_freq: int | str = "epoch",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        class_weight: dict[int, float] | None = None,
    ) -> None:
        self.model = model
        self.data = data
        self.rewind_step = rewind_step
        self.eval_freq: int = (
            data.steps_per_epoch if isinstance(eval_freq, str) else eval_freq
        )
        self.callbacks = list(callbacks)
        self.class_weight = class_weight
        self.optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        schedule = self.optimizer._learning_rate
        if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            schedule = OffsetSchedule(self.optimizer, schedule, steps)
            self.optimizer.learning_rate = schedule
        model.optimizer.build(model.trainable_variables)
        self._fresh = [read(v) for v in model.optimizer.variables]
        self._validation = _ready(data.validation)
        self._test = data.test and _ready(data.test)
        self._accuracy = _accuracy_key(self._evaluate(_first(data.validation)))

    def train(
        self,
        ticket: Ticket,
        seed: int,
        progress: Callable[[int], None] = lambda step: None,
    ) -> Training:
        """Trains a ticket.

        Args:
            ticket: what to train.
            seed: seed of the order of the data.
            progress: is called with the number of steps done.

        Raises:
            FloatingPointError: if a loss is not a number.
        """
        self._start(ticket)
        stop = ticket.step + ticket.steps
        watch = _Watch(self, ticket.step, stop, progress)
        callbacks = [watch, *copy.deepcopy(self.callbacks)]
        cuts = {ticket.step, stop}
        if ticket.step <= self.rewind_step < stop:
            cuts.add(self.rewind_step)
        rewind_point: State = {}
        began = time.perf_counter()
        for first, last in zip(sorted(cuts), [*sorted(cuts)[1:], stop], strict=True):
            if first == self.rewind_step:
                rewind_point = get_state(self.model)
            for epoch, until, *some in pieces(first, last, self.data.steps_per_epoch):
                watch.batches = self.data.batches(some[0], some[1], seed)
                self.model.fit(
                    watch.batches,
                    initial_epoch=epoch,
                    epochs=until,
                    callbacks=callbacks,
                    class_weight=self.class_weight,
                    shuffle=False,
                    verbose=0,
                )
                if self.model.stop_training:
                    break
            if self.model.stop_training:
                break
        if ticket.step <= self.rewind_step < stop and not rewind_point:
            raise ValueError(
                f"A callback stopped the training at step {watch.step}, before the "
                f"rewind point at step {self.rewind_step}. Choose an earlier "
                "`rewind_to`, or leave the callback out."
            )
        watch.evaluate()
        seconds = time.perf_counter() - began - watch.seconds
        final = get_state(self.model)
        metrics = {"seconds": seconds, **self._judge(watch, final)}
        return Training(final, rewind_point, watch.curve, metrics)

    def _start(self, ticket: Ticket) -> None:
        set_state(self.model, ticket.weights, ticket.masks)
        for variable, value in zip(
            self.model.optimizer.variables, self._fresh, strict=True
        ):
            variable.assign(np.array(value))
        schedule = self.optimizer._learning_rate
        if isinstance(schedule, OffsetSchedule):
            schedule.offset.assign(ticket.step)
            if ticket.learning_rate is not None:
                schedule.constant.assign(ticket.learning_rate)
        elif ticket.learning_rate is not None:
            self.optimizer.learning_rate = ticket.learning_rate

    def _judge(self, watch: "_Watch", final: State) -> dict[str, float]:
        metrics = {
            "final_val_accuracy": watch.curve["val_accuracy"][-1],
            "final_val_loss": watch.curve["val_loss"][-1],
            "final_test_accuracy": self.accuracy(self._test),
            "final_train_accuracy": self.accuracy(self.data.train),
        }
        best = watch.best
        set_state(self.model, watch.best_state)
        metrics |= {
            "early_stop_step": watch.curve["step"][best],
            "early_stop_val_accuracy": watch.curve["val_accuracy"][best],
            "early_stop_test_accuracy": self.accuracy(self._test),
        }
        set_state(self.model, final)
        return metrics

    def accuracy(self, data: Any) -> float:
        """The model's accuracy on data, NaN without data."""
        return math.nan if data is None else self._evaluate(data)[self._accuracy]

    def validate(self) -> tuple[float, float]:
        """The model's loss and accuracy on the validation data."""
        logs = self._evaluate(self._validation)
        return logs["loss"], logs[self._accuracy]

    def _evaluate(self, data: Any) -> dict[str, float]:
        if is_tf_dataset(data):
            return self.model.evaluate(data, verbose=0, return_dict=True)
        x, y, sample_weight = (*data, None)[:3]
        return self.model.evaluate(
            x,
            y,
            sample_weight=sample_weight,
            batch_size=EVALUATION_BATCH,
            verbose=0,
            return_dict=True,
        )


class _Watch(keras.callbacks.Callback):
    """Validates every so many steps, and remembers where the loss was least."""

    def __init__(
        self, engine: FitEngine, start: int, stop: int, progress: Callable[[int], None]
    ) -> None:
        super().__init__()
        self.engine = engine
        self.start = self.step = self.epoch_start = self.validated = start
        self.stop = stop
        self.progress = progress
        self.batches: Any = None
        self.curve: dict[str, list[float]] = {
            "step": [],
            "val_loss": [],
            "val_accuracy": [],
        }
        self.best = -1
        self.best_state: State = {}
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch_start = self.step
        if isinstance(self.batches, Batches):
            self.batches.set_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # The last execution of an epoch may be shorter than `steps_per_execution`.
        epoch_stop = self.epoch_start + self.params["steps"]
        self.step = min(self.epoch_start + batch + 1, epoch_stop)
        self.progress(self.step - self.start)
        if self.step // self.engine.eval_freq > self.validated // self.engine.eval_freq:
            self.evaluate()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # For the user's callbacks, which come later in the list.
        if logs is not None and self.curve["step"]:
            logs["val_loss"] = self.curve["val_loss"][-1]
            logs["val_accuracy"] = self.curve["val_accuracy"][-1]

    def evaluate(self) -> None:
        """Validates, unless this step has been."""
        if self.step == self.validated:
            return
        began = time.perf_counter()
        self.validated = self.step
        model = self.engine.model
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        # Validation shares the metrics with the epoch that is under way.
        metrics = [read(variable) for variable in model.metrics_variables]
        loss, accuracy = self.engine.validate()
        for variable, value in zip(model.metrics_variables, metrics, strict=True):
            variable.assign(value)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The validation loss is {loss} at step {self.step}. Lower the "
                "learning rate, or clip the gradients (`clipnorm`)."
            )
        self.curve["step"].append(self.step)
        self.curve["val_loss"].append(loss)
        self.curve["val_accuracy"].append(accuracy)
        if self.best < 0 or loss < self.curve["val_loss"][self.best]:
            self.best = len(self.curve["step"]) - 1
            self.best_state = get_state(model)
        self.seconds += time.perf_counter() - began


def _accuracy_key(logs: dict[str, float]) -> str:
    keys = [key for key in logs if "acc" in key]
    if not keys:
        raise ValueError(
            "A search compares accuracies. Received: a model whose metrics are "
            f"{sorted(logs)}. Compile it with `metrics=['accuracy']`."
        )
    return keys[0]


def _ready(data: Any) -> Any:
    """Data that are evaluated again and again, in the backend's own form."""
    if keras.backend.backend() != "tensorflow" or is_tf_dataset(data):
        return data
    import tensorflow as tf

    # `evaluate` would make one of the arrays at every call, which takes longer than
    # evaluating a small network.
    # A list would be stacked to one tensor.
    parts = keras.tree.lists_to_tuples(data)
    return tf.data.Dataset.from_tensor_slices(parts).batch(EVALUATION_BATCH)


def _first(data: Any) -> Any:
    """One batch of the data, to see that they fit the model."""
    if is_tf_dataset(data):
        return data.take(1)
    return keras.tree.map_structure(lambda array: array[:1], data)
