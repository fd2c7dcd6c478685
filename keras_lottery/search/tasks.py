"""The trainings of a search, as tasks to be done."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from keras_lottery.engines import Task, Training
from keras_lottery.search.store import TrainingId
from keras_lottery.tickets import Ticket


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredTask(Task):
    """A training to run, unless its result is stored. With no steps, it is not trained.

    Args:
        which: identifies it in the store.
        keep: the states to store: `"start"`, `"rewind_point"` and `"final"`; none by
            default. The masks are stored with them. The start is not stored if the
            ticket is made where it is trained.
        may_diverge: whether the other trainings continue if its loss is not a number.
    """

    which: TrainingId
    may_diverge: bool = False
    keep: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The training in words."""
        return str(self.which)

    def untrained(self) -> Training:
        """The result of a training with no steps: its start."""
        assert isinstance(self.ticket, Ticket)
        return Training(self.ticket.weights, self.ticket.weights, {}, {})


Levels = Generator[Iterable[StoredTask], Training, None]
"""Yields the trainings of each level, and is sent what the first of them gave.

It is asked for the next level then, whether the others are done or not. One that is
named twice is done once.
"""


def advance(levels: Levels, training: Training | None) -> list[StoredTask] | None:
    """The tasks of the next level, or `None` at the end.

    Args:
        levels: the generator of the tasks.
        training: the result of the first task of the last level.
    """
    try:
        tasks = next(levels) if training is None else levels.send(training)
    except StopIteration:
        return None
    unique: dict[TrainingId, StoredTask] = {}
    for task in tasks:
        unique.setdefault(task.which, task)
    return list(unique.values())


def alone(task: StoredTask) -> Levels:
    """A training that no other one depends on."""
    yield [task]
