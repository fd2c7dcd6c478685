"""What a search shows while it works."""

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


class Progress:
    """A bar of trainings with the time left; silent where nobody watches.

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
            disable=not verbose or not Console().is_terminal,
        )
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

    def finish(self) -> None:
        """Counts a training, trained now or before, as done."""
        self._bars.advance(self._task)
