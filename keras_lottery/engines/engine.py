"""The base class of engines, which train a ticket and return its `Training`."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar

import keras
import numpy as np

from keras_lottery.engines.checkpoint import Checkpoint
from keras_lottery.engines.compacted import Compact, compacted
from keras_lottery.engines.data import Data
from keras_lottery.engines.evaluation import evaluate
from keras_lottery.engines.learning_rate import OffsetSchedule
from keras_lottery.engines.objective import Objective, resolve
from keras_lottery.engines.record import Reached, TrainingRecord
from keras_lottery.engines.task import Done, Facts, Task, Training
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.internals.optimizers import (
    innermost,
    postpone_averages,
    schedule_of,
    take_averages,
)
from keras_lottery.keras_bridge.layers import get_state, set_state
from keras_lottery.keras_bridge.layers.recurrent import (
    batch_size_of,
    recurrent_states,
)
from keras_lottery.keras_bridge.layers.state import State, read
from keras_lottery.tickets import Ticket


class Engine:
    """Trains tickets in one compiled model.

    Args:
        model: a compiled masked model. It is compiled once; its variables, masks and
            optimizer are reset for each ticket.
        data: the data to train and evaluate on.
        steps: length of the dense training, in optimizer steps.
        rewind_step: the step whose state is kept by trainings that start before it.
        eval_freq: steps from one validation to the next, or `"epoch"`.
        callbacks: Keras callbacks, copied for each training.
        class_weight: same as `fit`.
        objective: the metric by which trainings are compared; by default the model's
            accuracy.
        compact: whether tickets with pruned filters are trained as the smaller networks
            that they are, see `Compact`. A vectorized engine never does so.

    Attributes:
        name: the engine's name in `engines.make`.
        most: how many tickets the engine can train at once.
        compacted: trains tickets in smaller networks; `None` if the engine does not.
        compact: the argument; `False` if the engine does not do so.
        objective: the objective that was resolved, with its direction.

    Raises:
        ValueError: if the model does not report the objective, or reports several
            accuracies and none is named.
    """

    name: ClassVar[str]
    most: ClassVar[int] = 1

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        steps: int,
        rewind_step: int = 0,
        eval_freq: int | str = "epoch",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        class_weight: dict[int, float] | None = None,
        objective: str | Objective | None = None,
        compact: Compact = False,
    ) -> None:
        how = data, steps, rewind_step, eval_freq, callbacks, class_weight, objective
        self._how = how
        self.compacted = compacted(
            model,
            self.smaller,
            data.batch_size,
            steps,
            callbacks,
            compact if self.name != "vectorized" else False,
        )
        self.compact: Compact = compact if self.compacted else False
        self.model = model
        self.data = data
        self.rewind_step = rewind_step
        self.eval_freq: int = (
            data.steps_per_epoch if isinstance(eval_freq, str) else eval_freq
        )
        self.callbacks = list(callbacks)
        self.class_weight = class_weight
        self.optimizer = innermost(model.optimizer)
        if schedule := schedule_of(self.optimizer):
            schedule = OffsetSchedule(self.optimizer, schedule, steps)
            self.optimizer.learning_rate = schedule
        model.optimizer.build(model.trainable_variables)
        # `fit` would replace the weights by their moving averages wherever an engine
        # cuts the training. The engine does so once, at the end.
        postpone_averages(model.optimizer)
        self._fresh = [read(v) for v in model.optimizer.variables]
        logs = evaluate(model, data.sample("validation", batch_size_of(model)))
        self.objective = resolve(objective, model, logs)

    def smaller(self, model: keras.Model) -> "Engine":
        """The engine of a smaller model, on the same data."""
        return type(self)(model, *self._how)

    def prepare(self) -> None:
        """Does work in advance, such as compiling, for which the first training waits.

        By default there is none.
        """

    def train(
        self,
        ticket: Ticket,
        seed: int,
        progress: Callable[[Reached], None] = lambda reached: None,
        stop: Callable[[State], bool] | None = None,
        keep_at: Sequence[int] = (),
        checkpoint: Checkpoint | None = None,
    ) -> Training:
        """Trains a ticket.

        Args:
            ticket: what to train.
            seed: seed of the order of the data.
            progress: is called with the training's progress now and then.
            stop: is called with the state at each validation after the rewind point;
                the training ends when it returns True.
            keep_at: steps whose states are kept. These steps are validated, and
                must be multiples of `eval_freq`.
            checkpoint: stores the state of the training regularly, and resumes from the
                stored state. It cannot be combined with callbacks or `stop`, because
                their state is not stored.

        Raises:
            FloatingPointError: if a loss is not a number.
        """
        if self.compacted:
            how = progress, stop, keep_at, checkpoint
            if (training := self.compacted.train(ticket, seed, *how)) is not None:
                return training
        self._start(ticket)
        record = TrainingRecord(self, ticket, progress, stop, keep_at)
        every, first_step = 0, ticket.step
        if checkpoint is not None:
            every = checkpoint.every
            first_step = checkpoint.restore(self.model, ticket, seed, record)
        end = ticket.step + ticket.steps
        run = self._runner(seed, record)
        began = time.perf_counter() - record.trained_seconds
        with backends.current().seeded(seed):
            for first, last in self._cuts(first_step, end - first_step, every):
                if first == self.rewind_step:
                    record.rewind_point = get_state(self.model)
                run(first, last)
                if record.stopped:
                    break
                if checkpoint is not None and last < end and last % every == 0:
                    record.trained_seconds = time.perf_counter() - began
                    checkpoint.write(self.model, ticket, seed, record)
        rewind_point = record.rewind_point
        passes = ticket.step <= self.rewind_step < ticket.step + ticket.steps
        if passes and not rewind_point:
            raise ValueError(
                f"A callback stopped the training at step {record.step}, before the "
                f"rewind point at step {self.rewind_step}. Choose an earlier "
                "`rewind_to`, or leave the callback out."
            )
        record.validate()
        take_averages(self.optimizer, self.model.trainable_variables)
        seconds = time.perf_counter() - began - record.seconds
        final = get_state(self.model)
        test, train = self._score("test")[1], self._score("train")[1]
        set_state(self.model, record.best_state)
        metrics = record.metrics(seconds, test, train, self._score("test")[1])
        set_state(self.model, final)
        return Training(final, rewind_point, record.curve, metrics, record.passed)

    def train_all(
        self,
        waiting: list[Task],
        progress: Callable[[Task, Reached], None] = lambda task, reached: None,
    ) -> Iterator[Done]:
        """Trains several tickets that do not depend on one another.

        Args:
            waiting: the tasks. Each is removed from the list when its training begins,
                and more may be appended meanwhile.
            progress: is called with a task and its progress now and then.

        Yields:
            Each task with its training, as soon as it is finished.
        """
        while waiting:
            task = waiting.pop(0)
            yield self.do(task, partial(progress, task))

    def do(
        self, task: Task, progress: Callable[[Reached], None] = lambda reached: None
    ) -> Done:
        """Trains the ticket of one task."""
        ticket = task.make(self.model, self.data.examples)
        how = progress, task.stop, task.keep_at, task.checkpoint
        try:
            training = task.kept(self.train(ticket, task.seed, *how))
        except FloatingPointError as error:
            return Done(task, Facts.of(ticket), error)
        return Done(task, Facts.of(ticket), training)

    def seconds_per_step(self, ticket: Ticket, steps: int = 20) -> float:
        """Measures how many seconds a step takes.

        Args:
            ticket: the ticket to train.
            steps: how many steps to time, after as many for compilation.
        """
        # The user's callbacks must not see a training that the user did not request.
        callbacks, self.callbacks = self.callbacks, []
        try:
            record = TrainingRecord(self, ticket, lambda reached: None)
            run = self._runner(0, record)
            self._start(ticket)
            middle = ticket.step + steps
            with backends.current().seeded(0):
                run(ticket.step, middle)
                began, validating = time.perf_counter(), record.seconds
                run(middle, middle + steps)
            seconds = time.perf_counter() - began - (record.seconds - validating)
        finally:
            self.callbacks = callbacks
        return seconds / steps

    def _runner(self, seed: int, record: TrainingRecord) -> Callable[[int, int], None]:
        """A function that trains from one step to another and updates the record."""
        raise NotImplementedError

    def _start(self, ticket: Ticket) -> None:
        # This comes first, because `set_state` reads these variables. On JAX, moving
        # averages that became weights at the end of a training share their buffers,
        # and were deleted when those were donated.
        for variable, value in zip(
            self.model.optimizer.variables, self._fresh, strict=True
        ):
            variable.assign(np.array(value))
        set_state(self.model, ticket.weights, ticket.masks)
        for state in recurrent_states(self.model):
            state.assign(np.zeros(state.shape))
        schedule = schedule_of(self.optimizer)
        if isinstance(schedule, OffsetSchedule):
            schedule.offset.assign(ticket.step)
            if ticket.learning_rate is not None:
                schedule.constant.assign(ticket.learning_rate)
        elif ticket.learning_rate is not None:
            self.optimizer.learning_rate = ticket.learning_rate

    def _cuts(self, step: int, steps: int, every: int = 0) -> list[tuple[int, int]]:
        """Cuts a training at the rewind point into (first step, last step + 1).

        Args:
            step: the step at which the training begins.
            steps: the length of the training in steps.
            every: cuts at each of its multiples as well; 0 for none.
        """
        end = step + steps
        points = range(step + every - step % every, end, every) if every else ()
        inner = {n for n in (self.rewind_step, *points) if step < n < end}
        return list(itertools.pairwise([step, *sorted(inner), end]))

    def _score(self, part: str) -> tuple[float, float]:
        """The model's loss and objective on a part of the data; NaN without data."""
        if part not in self.data.parts:
            return math.nan, math.nan
        logs = self._evaluate(part)
        return logs["loss"], logs[self.objective.metric]

    def _evaluate(self, part: str) -> dict[str, float]:
        return evaluate(self.model, self.data.parts[part])
