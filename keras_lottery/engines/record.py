"""The record of one training: its progress, validations and states."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_lottery.keras_bridge.layers import get_state
from keras_lottery.keras_bridge.layers.state import State
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    from keras_lottery.engines.engine import Engine


class Reached(NamedTuple):
    """The progress of a training.

    Args:
        step: the number of steps done; 0 if the training has just begun.
        epoch: the epoch reached, counted from the beginning of the dense training.
        epochs: the epoch at which the training ends, counted in the same way; 0 while
            it is not known.
        loss: the loss of the last validation; NaN before the first one.
    """

    step: int = 0
    epoch: float = 0.0
    epochs: float = 0.0
    loss: float = math.nan


class TrainingRecord:
    """Records the validations of one training, and the state of the lowest loss.

    Args:
        engine: the engine that trains.
        ticket: the ticket that is trained.
        progress, stop, keep_at: see `Engine.train`.

    Attributes:
        step: the step reached.
        validated: the step of the last validation.
        stopped: whether the training is to end at this step.
        curve: same as in `Training`.
        best: the position in the curve at which the loss was lowest.
        best_state: the state at that position.
        rewind_point: the state at the rewind point, if the training has passed it.
        seconds: the time that the validations took.
        trained_seconds: the time of the whole training up to the last checkpoint.
    """

    def __init__(
        self,
        engine: "Engine",
        ticket: Ticket,
        progress: Callable[[Reached], None],
        stop: Callable[[State], bool] | None = None,
        keep_at: Sequence[int] = (),
    ) -> None:
        self.engine = engine
        self.ticket = ticket
        self.step = self.validated = ticket.step
        self.progress = progress
        self.stop = stop
        self.stopped = False
        self.keep_at = keep_at
        self.passed: dict[int, State] = {}
        self.curve: dict[str, list[float]] = {
            name: [] for name in ("step", "val_loss", engine.objective.name)
        }
        self.best = -1
        self.best_state: State = {}
        self.rewind_point: State = {}
        self.seconds = 0.0
        self.trained_seconds = 0.0

    def reached(self, step: int) -> None:
        """Records a step, and validates if a validation is due."""
        self.step = step
        self.tell()
        frequency = self.engine.eval_freq
        if step // frequency > self.validated // frequency:
            self.validate()

    def tell(self) -> None:
        """Reports the progress of the training."""
        start, epoch = self.ticket.step, self.engine.data.steps_per_epoch
        end, losses = start + self.ticket.steps, self.curve["val_loss"]
        loss = losses[-1] if losses else math.nan
        self.progress(Reached(self.step - start, self.step / epoch, end / epoch, loss))

    def validate(self) -> None:
        """Validates the current step, unless it has been validated.

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
        """Records a validation; returns whether its loss is the lowest so far.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        self.validated = self.step
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The validation loss is {loss} at step {self.step}. Lower the "
                "learning rate, or clip the gradients (`clipnorm`)."
            )
        # The objective may be the loss itself, which is then recorded once.
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
        return may_stop or self.step in self.keep_at

    def ask(self, state: State) -> None:
        """Keeps the state if it is wanted; ends the training if `stop` returns True."""
        if self.step in self.keep_at:
            self.passed[self.step] = state
        if self.stop and self.step > self.engine.rewind_step and self.stop(state):
            self.stopped = True

    def metrics(
        self, seconds: float, test: float, train: float, best_test: float
    ) -> dict[str, float]:
        """The numbers of `Training.metrics`.

        Args:
            seconds: the time of the training without validations.
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
