"""What goes into an engine, and what comes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import keras

from keras_lottery.engines.checkpoint import Checkpoint
from keras_lottery.engines.data import Examples
from keras_lottery.keras_bridge.layers.state import State
from keras_lottery.tickets import Ticket


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
