"""What a search shows while it works."""

import contextlib
import math
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from keras_lottery.engines.record import Reached

SECONDS = 60.0
"""Without a line, where there are no bars, after which one says what is under way."""


class Progress:
    """Shows the progress of each training and of the whole search, and the time left.

    On a terminal there is a bar for each training that is running, and one for the
    whole search. Elsewhere, as in a notebook or a log file, a line appears for each
    training that has finished, and one every minute if none has.

    Args:
        trainings: the number of trainings in the whole search.
        verbose: 0 shows nothing.
    """

    def __init__(self, trainings: int, verbose: int) -> None:
        console = Console()
        self._lines = bool(verbose) and not console.is_terminal
        self._all = Bars(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trainings,"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            # Trainings may take long, so the pace is that of the last hour.
            speed_estimate_period=3600,
        )
        self._each = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[far]}"),
        )
        self._under_way: dict[str, TaskID] = {}
        self._task = self._all.add_task("all", total=trainings)
        self._live: contextlib.AbstractContextManager = contextlib.nullcontext()
        if verbose and console.is_terminal:
            self._live = Live(Group(self._each, self._all), console=console)
        self._said = time.monotonic()

    def __enter__(self) -> "Progress":
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def show(self, name: str, reached: Reached) -> None:
        """Shows how far a training has come."""
        if name not in self._under_way:
            self._under_way[name] = self._each.add_task(name, total=None, far="")
        far, end = _words(reached), reached.epochs or None
        task = self._under_way[name]
        self._each.update(task, completed=reached.epoch, total=end, far=far)
        if self._lines and time.monotonic() - self._said >= SECONDS:
            self._say(f"{name}: {far}; {len(self._under_way)} under way")

    def finish(self, name: str, gave: str = "") -> None:
        """Counts a training as finished.

        Args:
            name: same as in `show`.
            gave: its result, in words.
        """
        if name in self._under_way:
            self._each.remove_task(self._under_way.pop(name))
        self._all.advance(self._task)
        if self._lines:
            self._say(f"{name}: {gave}" if gave else name)

    def leave_out(self) -> None:
        """Takes a training out of the count, as it was finished earlier."""
        total = self._all.tasks[self._task].total or 1
        self._all.update(self._task, total=total - 1)

    def _say(self, what: str) -> None:
        self._said = time.monotonic()
        task = self._all.tasks[self._task]
        gone, left = (
            None if seconds is None else timedelta(seconds=round(seconds))
            for seconds in (task.elapsed, task.time_remaining)
        )
        print(
            f"{what}; {task.completed:.0f} of {task.total:.0f} trainings, {gone} gone"
            + ("" if left is None else f", {left} left"),
            flush=True,
        )


def _words(reached: Reached) -> str:
    """How far a training has come, in words.

    >>> _words(Reached(300, 1.5, 8, 0.25))
    'epoch 1.5 of 8, val_loss 0.25'
    """
    if not reached.epochs:
        return "starting"
    words = f"epoch {reached.epoch:.1f} of {reached.epochs:.3g}"
    loss = reached.loss
    return words if math.isnan(loss) else f"{words}, val_loss {loss:.4g}"
