"""Tasks, which engines do, and the trainings that they return."""

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
    """The result of training a ticket.

    Args:
        final: the state at the end.
        rewind_point: the state at the rewind point; empty if the training did not pass
            it.
        curve: lists of equal length by name: `step`, `val_loss`, and the objective's.
        metrics: numbers at the early stop and at the end, as in the results' table.
        passed: by step, the states at the steps of `keep_at`.
    """

    final: State
    rewind_point: State
    curve: dict[str, list[float]]
    metrics: dict[str, float]
    passed: Mapping[int, State] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """A training to do.

    Args:
        ticket: the ticket, or a function of (model, data) that makes it. The function
            is called in the process that trains the ticket, just before the training.
        seed: seed of the order of the data.
        stop, keep_at: see `Engine.train`.
        keep: which states of the training to keep: `"rewind_point"`, `"final"`, both or
            neither; and `"start"`, the ticket's own state, for those who store it.
        checkpoint: see `Engine.train`.
    """

    ticket: Ticket | Callable[[keras.Model, Examples], Ticket]
    seed: int
    stop: Callable[[State], bool] | None = None
    keep_at: Sequence[int] = ()
    keep: Sequence[str] = ("rewind_point", "final")
    checkpoint: Checkpoint | None = None

    def __str__(self) -> str:
        """The name of the task in messages."""
        return "a ticket"

    @property
    def has_steps(self) -> bool:
        """Whether there is anything to train."""
        return not isinstance(self.ticket, Ticket) or self.ticket.steps > 0

    def make(self, model: keras.Model, data: Examples) -> Ticket:
        """Returns the ticket, which is made first if it is a function.

        Args:
            model: a masked model from which to make it; the model is changed.
            data: returns the training inputs and targets.
        """
        if isinstance(self.ticket, Ticket):
            return self.ticket
        return self.ticket(model, data)

    def kept(self, training: Training) -> Training:
        """The training without the states that are not to be kept."""
        left_out = {"rewind_point", "final"} - set(self.keep)
        return replace(training, **{name: {} for name in left_out})


class Facts(NamedTuple):
    """The facts about a ticket that the results' table contains."""

    step: int
    steps: int
    learning_rate: float | None
    sparsity: float

    @classmethod
    def of(cls, ticket: Ticket) -> Self:
        """The facts about a ticket."""
        how = ticket.step, ticket.steps, ticket.learning_rate
        return cls(*how, ticket.masks.sparsity)


class Done(NamedTuple):
    """The outcome of a task: its training, or the error if a loss is not a number."""

    task: Task
    facts: Facts
    result: Training | FloatingPointError
