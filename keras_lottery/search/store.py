"""The directory of one search: every path in it."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from keras_lottery import checks
from keras_lottery.files import LOCK, SEAL, TEMPORARY, alone

MASK_FINDING = "mask_finding"
"""The variant of the runs that find masks, where the tickets' trainings do not."""


LOCKS = ".locks"
PATIENCE = 600.0
"""Seconds to wait for a lock that is held for moments."""

_LOCKED = re.compile(r"replicate_([0-9]{1,9})")
_INITIAL = re.compile(r"replicate_([0-9]{1,9})/initial\.safetensors")
_TRAINING = re.compile(
    r"replicate_([0-9]{1,9})/level_([0-9]{2,9})/([\w.-]+)_([0-9]{1,9})\.safetensors"
)


class TrainingId(NamedTuple):
    """Identifies a training of a search."""

    replicate: int
    level: int
    variant: str
    trial: int = 0

    def __str__(self) -> str:
        """The training in words.

        >>> str(TrainingId(0, 2, "reinit", 1))
        'replicate 0, level 2: reinit 1'
        """
        trial = f" {self.trial}" if self.trial else ""
        return f"replicate {self.replicate}, level {self.level}: {self.variant}{trial}"


class Store:
    """The directory of one search.

    Args:
        directory: it is created if it does not exist.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = checks.existing_directory("directory", directory)

    @property
    def settings(self) -> Path:
        """The file of the settings of the search."""
        return self.directory / "settings.json"

    @property
    def results(self) -> Path:
        """The file of the table of results."""
        return self.directory / "results.csv"

    @property
    def card(self) -> Path:
        """The file in which `keras-lottery find` notes the command, data and model."""
        return self.directory / "run.json"

    @property
    def exports(self) -> Path:
        """The file in which `keras-lottery find` notes what it measured on exports."""
        return self.directory / "reports.json"

    @property
    def lock(self) -> Path:
        """The lock that is held to write settings, initial weights or the table."""
        return self.directory / LOCK

    def lock_of(self, replicate: int) -> Path:
        """The lock that is held while a process trains a replicate."""
        return self.directory / LOCKS / f"replicate_{replicate}"

    def holder_of(self, replicate: int) -> Path:
        """The file that says which process trains a replicate."""
        return self.lock_of(replicate).with_suffix(".holder")

    def locked_before(self) -> list[int]:
        """The replicates that a process trains, or has trained."""
        names = (path.name for path in (self.directory / LOCKS).glob("replicate_*"))
        found = (_LOCKED.fullmatch(name) for name in names)
        return sorted(int(each[1]) for each in found if each)

    def initial(self, replicate: int) -> Path:
        """The file of the weights that a replicate starts from."""
        return self._replicate(replicate) / "initial.safetensors"

    def training(self, which: TrainingId) -> Path:
        """The file of the result of one training."""
        folder = self._replicate(which.replicate) / f"level_{which.level:02}"
        return folder / f"{which.variant}_{which.trial}.safetensors"

    def unfinished(self, which: TrainingId) -> Path:
        """The file of the state of an unfinished training."""
        return self.training(which).with_suffix(".unfinished")

    def training_ids(self) -> list[TrainingId]:
        """The trainings that are stored, in the order of the search.

        Files and folders with other names, such as copies, are ignored.
        """
        return sorted(which for path in self._records() if (which := _id_of(path)))

    def is_record(self, name: str) -> bool:
        """Whether a name is that of a record in the directory."""
        found = _INITIAL.fullmatch(name)
        own = self.initial(int(found[1])) if found else None
        if which := _id_of(Path(name)):
            own = self.training(which)
        return own == self.directory / name

    def _records(self) -> list[Path]:
        paths = self.directory.glob("replicate_*/**/*.safetensors")
        root = self.directory
        return [p for p in paths if self.is_record(p.relative_to(root).as_posix())]

    def _replicate(self, replicate: int) -> Path:
        return self.directory / f"replicate_{replicate}"

    def alone(
        self, patience: float | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Locks the settings, initial weights and the table against other processes.

        Args:
            patience: how many seconds to wait for other processes; ten minutes by
                default.

        Raises:
            BlockingIOError: if another search is still writing after that time.
        """
        patience = PATIENCE if patience is None else patience
        return alone(self.directory, "search", patience)

    def exporting(self) -> contextlib.AbstractContextManager[None]:
        """Locks figures and exported files against others; errors same as `alone`."""
        return alone(self.directory / LOCKS, "search", PATIENCE)

    def check_own(self) -> None:
        """Raises ValueError if files of a search's names come from elsewhere."""
        if self._records():
            return
        if self.settings.exists():
            foreign = [self.settings]
            if SEAL.encode() in self.settings.read_bytes():
                return
        else:
            others = (self.directory / name for name in ("figure.png", "table.txt"))
            files = (self.results, self.card, self.exports, *others)
            foreign = [path for path in files if path.exists()]
        if foreign:
            names = ", ".join(path.name for path in foreign)
            raise ValueError(
                "Expected `directory` to be that of a search, or to have none of its "
                f"files. Received: '{self.directory}', whose {names} "
                "no search wrote. "
                "Choose another `directory`, or move what is there."
            )

    def clean(self, replicate: int | None = None) -> None:
        """Removes what a killed process was writing: of a replicate, or of the rest."""
        # Only where this process writes: others may be writing beside it and below.
        root, folders = self.directory, [""]
        if replicate is not None:
            root, folders = self._replicate(replicate), ["", "level_*/"]
        for folder in folders:
            for path in root.glob(f"{folder}{TEMPORARY}*"):
                if path.is_file():
                    path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the search, but not its locks, nor anything else that is there."""
        self.clean()
        for path in (
            *self._records(),
            *self.directory.glob(f"replicate_*/{TEMPORARY}*"),
            *self.directory.glob(f"replicate_*/level_*/{TEMPORARY}*"),
            *self.directory.glob("replicate_*/level_*/*.unfinished"),
            self.settings,
            self.results,
            self.card,
            self.exports,
        ):
            path.unlink(missing_ok=True)
        for pattern in ("replicate_*/level_*", "replicate_*"):
            for folder in self.directory.glob(pattern):
                # The directory may hold other files.
                with contextlib.suppress(OSError):
                    folder.rmdir()


def explain_missing(
    missing: Collection[TrainingId], expected: Collection[TrainingId]
) -> str:
    """Says in words which trainings of a search are missing.

    Args:
        missing: the missing ones, at least one.
        expected: all trainings of the search.

    >>> both = [TrainingId(r, level, "ticket") for r in (0, 1) for level in (0, 1)]
    >>> explain_missing(both[2:], both)
    '2 of 4 trainings are missing: all of replicate 1'
    >>> explain_missing(both[1:2], both)
    '1 of 4 trainings is missing: 1 of replicate 0, from level 1 on'
    """
    each = Counter(which.replicate for which in expected)
    left = Counter(which.replicate for which in sorted(missing))
    whole = [str(r) for r in left if left[r] == each[r]]
    parts = []
    if whole:
        some = "replicates" if len(whole) > 1 else "replicate"
        parts.append(f"all of {some} {', '.join(whole)}")
    for r in (r for r in left if left[r] < each[r]):
        first = min(which.level for which in missing if which.replicate == r)
        parts.append(f"{left[r]} of replicate {r}, from level {first} on")
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"{len(missing)} of {len(expected)} trainings {verb} missing: "
        f"{'; '.join(parts)}"
    )


def _id_of(path: Path) -> TrainingId | None:
    """The training whose file has this path."""
    found = _TRAINING.fullmatch("/".join(path.parts[-3:]))
    return found and TrainingId(int(found[1]), int(found[2]), found[3], int(found[4]))
