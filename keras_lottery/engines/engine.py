"""What engines share: a ticket goes in, its training comes out."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np

from keras_lottery.engines.checkpoint import Checkpoint
from keras_lottery.engines.compacted import Compact, compacted
from keras_lottery.engines.data import Data, Examples
from keras_lottery.engines.learning_rate import OffsetSchedule
from keras_lottery.engines.objective import Objective, resolve
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.datasets import is_dataset
from keras_lottery.keras_bridge.internals.optimizers import (
    innermost,
    postpone_averages,
    schedule_of,
    take_averages,
)
from keras_lottery.keras_bridge.layers import get_state, set_state
from keras_lottery.keras_bridge.layers.recurrent import (
    at_rest,
    batch_size_of,
    recurrent_states,
)
from keras_lottery.keras_bridge.layers.state import State, read
from keras_lottery.tickets import Ticket

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Training:
    """What training a ticket gave.

    Args:
        final: the state at the end.
        rewind_point: the state at the rewind point; empty if training did not pass it.
        curve: lists of equal length: `step`, `val_loss`, and the objective's.
        metrics: numbers of the early stop and of the end, as in the results' table.
        checkpoints: the states that were asked for, by step.
    """

    final: State
    rewind_point: State
    curve: dict[str, list[float]]
    metrics: dict[str, float]
    checkpoints: Mapping[int, State] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """A training to do.

    Args:
        ticket: what to train, or a function of (model, data) that makes it, called
            where and when it is trained.
        seed: seed of the order of the data.
        stop, checkpoints: see `Engine.train`.
        keep: the states that are wanted of it: `"rewind_point"` and `"final"`, or not
            so much; and the ticket's `"start"`, for those who store it.
        checkpoint: see `Engine.train`.
    """

    ticket: Ticket | Callable[[keras.Model, Examples], Ticket]
    seed: int
    stop: Callable[[State], bool] | None = None
    checkpoints: Sequence[int] = ()
    keep: Sequence[str] = ("rewind_point", "final")
    checkpoint: Checkpoint | None = None

    def __str__(self) -> str:
        """What it is called in messages."""
        return "a ticket"

    @property
    def has_steps(self) -> bool:
        """Whether there is anything to train."""
        return not isinstance(self.ticket, Ticket) or self.ticket.steps > 0

    def make(self, model: keras.Model, data: Examples) -> Ticket:
        """The ticket.

        Args:
            model: a masked model to make it of, which is changed.
            data: gives what it is to be trained on.
        """
        if isinstance(self.ticket, Ticket):
            return self.ticket
        return self.ticket(model, data)

    def kept(self, training: Training) -> Training:
        """A training of the ticket without the states that nobody wants."""
        left_out = {"rewind_point", "final"} - set(self.keep)
        return replace(training, **{name: {} for name in left_out})


class Facts(NamedTuple):
    """What the results say of a ticket; see there."""

    step: int
    steps: int
    learning_rate: float | None
    sparsity: float

    @classmethod
    def of(cls, ticket: Ticket) -> Self:
        """Those of a ticket."""
        how = ticket.step, ticket.steps, ticket.learning_rate
        return cls(*how, ticket.masks.sparsity)


class Done(NamedTuple):
    """What became of a task: its training, or the error if a loss is not a number."""

    task: Task
    facts: Facts
    result: Training | FloatingPointError


class Engine:
    """Trains tickets in one compiled model.

    Args:
        model: a compiled masked model. It is compiled once; its variables, masks and
            optimizer are set anew for each ticket.
        data: what to train and judge on.
        steps: length of the dense training, in optimizer steps.
        rewind_step: the step whose state is kept, in trainings that start before it.
        eval_freq: steps from one validation to the next, or `"epoch"`.
        callbacks: Keras callbacks, copied for each training.
        class_weight: same as `fit`.
        objective: what trainings are compared by; by default the model's accuracy.
        compact: whether tickets of filters are trained as the smaller networks that
            they are, see `Compact`. Of a vectorized engine's, none are.

    Attributes:
        name: what `engines.make` calls it.
        compacted: what trains tickets in smaller networks, if any are.
        compact: what was asked for; `False` if none are.
        objective: what was meant, with its direction.

    Raises:
        ValueError: if the model does not report the objective, or reports several
            accuracies and none is named.
    """

    name: ClassVar[str]

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
        how = (data, steps, rewind_step, eval_freq, callbacks, class_weight, objective)
        self.compacted = compacted(
            model,
            lambda smaller: type(self)(smaller, *how),
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
        # `fit` would put the moving averages in the place of the weights wherever an
        # engine cuts the training; here it is done once, at the end.
        postpone_averages(model.optimizer)
        self._fresh = [read(v) for v in model.optimizer.variables]
        logs = evaluate(model, data.sample("validation", batch_size_of(model)))
        self.objective = resolve(objective, model, logs)

    def train(
        self,
        ticket: Ticket,
        seed: int,
        progress: Callable[[int], None] = lambda step: None,
        stop: Callable[[State], bool] | None = None,
        checkpoints: Sequence[int] = (),
        checkpoint: Checkpoint | None = None,
    ) -> Training:
        """Trains a ticket.

        Args:
            ticket: what to train.
            seed: seed of the order of the data.
            progress: is called with the number of steps done.
            stop: is asked at each validation after the rewind point, with the state
                there; the training ends where it answers True.
            checkpoints: steps whose states are kept; they are validated, too: multiples
                of `eval_freq`.
            checkpoint: stores the state of the training again and again, and goes on
                from the one that is stored. There are no callbacks and no `stop` then,
                whose state nobody knows.

        Raises:
            FloatingPointError: if a loss is not a number.
        """
        if self.compacted:
            how = progress, stop, checkpoints, checkpoint
            if (training := self.compacted.train(ticket, seed, *how)) is not None:
                return training
        self._start(ticket)
        record = Record(self, ticket.step, progress, stop, checkpoints)
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
        return Training(final, rewind_point, record.curve, metrics, record.checkpoints)

    def train_all(
        self,
        waiting: list[Task],
        progress: Callable[[Task, int], None] = lambda task, step: None,
    ) -> Iterator[Done]:
        """Trains several tickets that do not depend on one another.

        Args:
            waiting: what to train. Tasks are taken from the list as they are begun, and
                more may be appended meanwhile.
            progress: is called with a task and the number of its steps done.

        Yields:
            Each task with its training, as soon as it is done.
        """
        while waiting:
            task = waiting.pop(0)
            yield self.do(task, partial(progress, task))

    def do(
        self, task: Task, progress: Callable[[int], None] = lambda step: None
    ) -> Done:
        """Does one task."""
        ticket = task.make(self.model, self.data.examples)
        how = progress, task.stop, task.checkpoints, task.checkpoint
        try:
            training = task.kept(self.train(ticket, task.seed, *how))
        except FloatingPointError as error:
            return Done(task, Facts.of(ticket), error)
        return Done(task, Facts.of(ticket), training)

    def seconds_per_step(self, ticket: Ticket, steps: int = 20) -> float:
        """How long a step takes, by a short measurement.

        Args:
            ticket: what to train.
            steps: how many steps to take, after as many that compile.
        """
        # The user's are not to see a training that nobody asked for.
        callbacks, self.callbacks = self.callbacks, []
        record = Record(self, ticket.step, lambda step: None)
        run = self._runner(0, record)
        self._start(ticket)
        middle = ticket.step + steps
        with backends.current().seeded(0):
            run(ticket.step, middle)
            began, validating = time.perf_counter(), record.seconds
            run(middle, middle + steps)
        seconds = time.perf_counter() - began - (record.seconds - validating)
        self.callbacks = callbacks
        return seconds / steps

    def _runner(self, seed: int, record: "Record") -> Callable[[int, int], None]:
        """What trains from one step to another, and tells the record of its steps."""
        raise NotImplementedError

    def _start(self, ticket: Ticket) -> None:
        # First, for `set_state` reads them: on JAX, moving averages that became weights
        # at the end of a training went with these when they were donated.
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
        """The parts of a training: up to the rewind point, and from there on.

        Args:
            step: where it begins.
            steps: how many there are.
            every: cuts at each multiple of it as well.
        """
        end = step + steps
        points = range(step + every - step % every, end, every) if every else ()
        inner = {n for n in (self.rewind_step, *points) if step < n < end}
        return list(itertools.pairwise([step, *sorted(inner), end]))

    def _score(self, part: str) -> tuple[float, float]:
        """The model's loss and objective on a part of the data, NaN without data."""
        if part not in self.data.parts:
            return math.nan, math.nan
        logs = self._evaluate(part)
        return logs["loss"], logs[self.objective.metric]

    def _evaluate(self, part: str) -> dict[str, float]:
        return evaluate(self.model, self.data.parts[part])


class Record:
    """What is seen of one training: its validations, and where the loss was least.

    Args:
        engine: what trains.
        start: the step that the training starts at.
        progress, stop: see `Engine.train`.
        wanted: its `checkpoints`.

    Attributes:
        step: the step reached.
        validated: the step of the last validation.
        stopped: whether the training is to end there.
        curve: same as `Training`.
        best, best_state: where in the curve the loss was least, and the state there.
        rewind_point: the state there, if it was passed.
        seconds: time that the validations took.
        trained_seconds: time of all, up to the last checkpoint.
    """

    def __init__(
        self,
        engine: Engine,
        start: int,
        progress: Callable[[int], None],
        stop: Callable[[State], bool] | None = None,
        wanted: Sequence[int] = (),
    ) -> None:
        self.engine = engine
        self.start = self.step = self.validated = start
        self.progress = progress
        self.stop = stop
        self.stopped = False
        self.wanted = wanted
        self.checkpoints: dict[int, State] = {}
        self.curve: dict[str, list[float]] = {
            name: [] for name in ("step", "val_loss", engine.objective.name)
        }
        self.best = -1
        self.best_state: State = {}
        self.rewind_point: State = {}
        self.seconds = 0.0
        self.trained_seconds = 0.0

    def reached(self, step: int) -> None:
        """Takes note of a step, and validates where that is due."""
        self.step = step
        self.progress(step - self.start)
        frequency = self.engine.eval_freq
        if step // frequency > self.validated // frequency:
            self.validate()

    def validate(self) -> None:
        """Validates, unless this step has been.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        if self.step == self.validated:
            return
        began = time.perf_counter()
        is_best = self.add(*self.engine._score("validation"))
        if is_best or self.asks:
            state = get_state(self.engine.model)
            if is_best:
                self.best_state = state
            self.ask(state)
        self.seconds += time.perf_counter() - began

    def add(self, loss: float, value: float) -> bool:
        """Takes note of a validation; whether its loss is the least so far.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        self.validated = self.step
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The validation loss is {loss} at step {self.step}. Lower the "
                "learning rate, or clip the gradients (`clipnorm`)."
            )
        # The objective may be the loss itself.
        point = {"step": self.step, "val_loss": loss, self.engine.objective.name: value}
        for name, number in point.items():
            self.curve[name].append(number)
        is_best = self.best < 0 or loss < self.curve["val_loss"][self.best]
        if is_best:
            self.best = len(self.curve["step"]) - 1
        return is_best

    @property
    def asks(self) -> bool:
        """Whether the state of this step is asked for."""
        may_stop = self.stop is not None and self.step > self.engine.rewind_step
        return may_stop or self.step in self.wanted

    def ask(self, state: State) -> None:
        """Keeps the state, if it is wanted; ends the training, if `stop` says so."""
        if self.step in self.wanted:
            self.checkpoints[self.step] = state
        if self.stop and self.step > self.engine.rewind_step and self.stop(state):
            self.stopped = True

    def metrics(
        self, seconds: float, test: float, train: float, best_test: float
    ) -> dict[str, float]:
        """The numbers of `Training.metrics`.

        Args:
            seconds: time of the training alone.
            test, train: the objective at the end.
            best_test: the objective at the early stop.
        """
        curve, best, objective = self.curve, self.best, self.engine.objective
        values, column = curve[objective.name], objective.column
        return {
            "seconds": seconds,
            "final_val_loss": curve["val_loss"][-1],
            column("final", "val"): values[-1],
            column("final", "test"): test,
            column("final", "train"): train,
            "early_stop_step": curve["step"][best],
            column("early_stop", "val"): values[best],
            column("early_stop", "test"): best_test,
        }


def evaluate(model: keras.Model, data: Any) -> dict[str, float]:
    """The model's loss and metrics on data, by `model.evaluate`.

    Recurrent states start at rest, and are left as they were.
    """
    data = ready(model, data)
    given: dict[str, Any] = {"x": data}
    if not is_dataset(data):
        x, y, sample_weight = (*data, None)[:3]
        given = {"x": x, "y": y, "sample_weight": sample_weight}
        given["batch_size"] = evaluation_batch(model)
    # Keras's loader draws a number on torch, though nothing is shuffled.
    with at_rest(model), backends.current().seeded(0):
        return model.evaluate(**given, verbose=0, return_dict=True)


def ready(model: keras.Model, data: Any) -> Any:
    """Data in the form that the backend evaluates fastest."""
    if is_dataset(data):
        return data
    return backends.current().ready(data, evaluation_batch(model))


def evaluation_batch(model: keras.Model) -> int:
    """How many examples are evaluated at once: as many as the model is fixed to."""
    return batch_size_of(model) or EVALUATION_BATCH
