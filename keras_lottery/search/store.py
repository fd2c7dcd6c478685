"""The directory of one search: every path in it, and the lock on it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from keras_lottery.files import TEMPORARY

MASK_FINDING = "mask_finding"
"""The variant of the runs that find masks, where the tickets' trainings do not."""


class Unit(NamedTuple):
    """One training of a search."""

    replicate: int
    level: int
    variant: str
    trial: int = 0


class Store:
    """The directory of one search.

    Args:
        directory: is made if it does not exist.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)

    @property
    def settings(self) -> Path:
        """What the search was asked for."""
        return self.directory / "settings.json"

    @property
    def results(self) -> Path:
        """The table of results."""
        return self.directory / "results.csv"

    @property
    def card(self) -> Path:
        """What `keras-lottery find` notes beside a search: the name of its data."""
        return self.directory / "run.json"

    @property
    def exports(self) -> Path:
        """What `keras-lottery find` measured on the files that it exported."""
        return self.directory / "reports.json"

    @property
    def lock(self) -> Path:
        """Locked while a search runs here."""
        return self.directory / ".lock"

    def initial(self, replicate: int) -> Path:
        """The weights that a replicate starts from."""
        return self._replicate(replicate) / "initial.safetensors"

    def training(self, unit: Unit) -> Path:
        """What one training gave."""
        folder = self._replicate(unit.replicate) / f"level_{unit.level:02}"
        return folder / f"{unit.variant}_{unit.trial}.safetensors"

    def units(self) -> list[Unit]:
        """The trainings that are stored, in the order of the search."""
        units = []
        for path in self.directory.glob("replicate_*/level_*/*_*.safetensors"):
            variant, _, trial = path.stem.rpartition("_")
            level, replicate = (
                int(folder.name.rpartition("_")[2]) for folder in path.parents[:2]
            )
            units.append(Unit(replicate, level, variant, int(trial)))
        return sorted(units)

    def _replicate(self, replicate: int) -> Path:
        return self.directory / f"replicate_{replicate}"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other searches from writing here meanwhile.

        The system takes the lock from a process that ends, however it does. Its file
        stays: to remove it would let two searches lock two files of one name.

        Raises:
            BlockingIOError: if another search is running here.
        """
        lock = FileLock(self.lock, timeout=0)
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock)
            except Timeout as error:
                raise BlockingIOError(
                    f"Another search is running in the directory '{self.directory}'. "
                    "Wait for its end, or choose another directory."
                ) from error
            yield

    def clean(self) -> None:
        """Removes what a killed process was writing."""
        for path in self.directory.rglob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the search; its lock, and whatever else is there, stays."""
        for path in sorted(self.directory.glob("replicate_*/**/*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        for path in self.directory.glob("replicate_*"):
            path.rmdir()
        for path in (self.settings, self.results, self.card, self.exports):
            path.unlink(missing_ok=True)
