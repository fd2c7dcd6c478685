"""What a search shows while it works."""

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

SECONDS = 10.0
"""Between one line and the next, where there is no bar."""


class Progress:
    """How far the trainings are and the time that is left.

    A bar on a terminal; elsewhere, as in a notebook or a log file, a line every ten
    seconds.

    Args:
        trainings: how many there are in the whole search.
        verbose: 0 shows nothing.
    """

    def __init__(self, trainings: int, verbose: int) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trainings,"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("(step {task.fields[step]:,})"),
            # Trainings may take long: the pace is that of the last hour.
            speed_estimate_period=3600,
            disable=not verbose or not Console().is_terminal,
        )
        self._lines = bool(verbose) and self._bars.disable
        self._shown = time.monotonic()
        self._task = self._bars.add_task("starting", total=trainings, step=0)

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def show(self, name: str, step: int) -> None:
        """Shows which training is under way, and how many of its steps are done."""
        self._bars.update(self._task, description=name, step=step)
        self._line()

    def finish(self) -> None:
        """Counts a training, trained now or before, as done."""
        self._bars.advance(self._task)
        self._line()

    def _line(self) -> None:
        if not self._lines or time.monotonic() - self._shown < SECONDS:
            return
        self._shown = time.monotonic()
        task = self._bars.tasks[self._task]
        left = task.time_remaining
        print(
            f"{task.description} (step {task.fields['step']:,}): "
            f"{task.completed:.0f} of {task.total:.0f} trainings, "
            f"{timedelta(seconds=round(task.elapsed or 0))} gone"
            + ("" if left is None else f", {timedelta(seconds=round(left))} left"),
            flush=True,
        )
