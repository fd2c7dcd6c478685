"""The trainings of a search, before they are done."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from keras_lottery.engines import Task, Training
from keras_lottery.search.store import TrainingId
from keras_lottery.tickets import Ticket


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredTask(Task):
    """A training to do, unless it is stored. One of no steps is not trained.

    Args:
        which: its place in the store.
        keep: the states to store: `"start"`, `"rewind_point"` and `"final"`; nothing by
            default. With them, the masks are stored. What makes its ticket where it is
            trained stores no start.
        may_diverge: whether the others go on if its loss is not a number.
    """

    which: TrainingId
    may_diverge: bool = False
    keep: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Which training it is."""
        return str(self.which)

    def untrained(self) -> Training:
        """What a training of no steps gives: its start."""
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
        levels: what makes them.
        training: what the first task of the last level gave.
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
    """A training that nothing depends on."""
    yield [task]
