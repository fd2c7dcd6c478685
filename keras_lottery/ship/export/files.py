"""Paths, sizes, checksums and atomic writing of exported files."""

import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_lottery import checks
from keras_lottery.files import SEAL, CorruptedFileError, read_sealed

REPORTS = "reports.json"
"""The file in which `keras-lottery find` reports on the files beside it."""


def file_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """Returns the path of a file to write, or raises ValueError."""
    return checks.path("path", path, (suffix,))


def saved_model_path(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a SavedModel to write, or raises ValueError.

    A directory that holds something else is never replaced.
    """
    folder = checks.existing("path", path)
    replaceable = (folder / "saved_model.pb").exists() or (
        folder.is_dir() and not any(folder.iterdir())
    )
    if folder.suffix in (".keras", ".tflite") or (folder.exists() and not replaceable):
        raise ValueError(
            "Expected `path` to be a directory for a SavedModel: a new one, an empty "
            f"one, or an older SavedModel to replace. Received: path='{folder}'."
        )
    return checks.directory("path", path)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yields a path to write to; it replaces `path` if the block does not raise.

    If the block raises, nothing is left behind, and an older file stays as it was.
    """
    created = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The draft lies beside the target, because a rename is atomic only within one
        # file system.
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", dir=path.parent
        ) as folder:
            draft = Path(folder, "new", path.name)
            draft.parent.mkdir()
            yield draft
            _replace(draft, path, aside=Path(folder, "old"))
    except BaseException:
        for parent in created:
            with suppress(OSError):
                parent.rmdir()
        raise


def _replace(draft: Path, path: Path, aside: Path) -> None:
    if not path.is_dir():
        os.replace(draft, path)
        return
    # A rename cannot replace a directory that is not empty, so move it away first.
    os.replace(path, aside)
    try:
        os.replace(draft, path)
    except BaseException:
        os.replace(aside, path)
        raise


def size_of(path: Path) -> int:
    """The size on disk in bytes; for a directory, the sum over its files."""
    return sum(file.stat().st_size for file in _files(path))


def gzip_size_of(path: Path) -> int:
    """The size after gzip in bytes, where each file is compressed on its own."""
    return sum(len(gzip.compress(file.read_bytes())) for file in _files(path))


def digests_of(path: Path) -> dict[str, str]:
    """The SHA-256 of a file, or of each file of a directory, by name.

    Names are relative to the folder that contains the path.
    """
    return {
        file.relative_to(path.parent).as_posix(): hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
        for file in sorted(_files(path))
    }


def check_file(path: str | os.PathLike[str]) -> None:
    """Raises unless an exported file equals, byte for byte, the one in its report.

    The report is `reports.json` beside the file, which `keras-lottery find` writes, or
    the card of `deploy`, such as `mobile.json`. Check a file before you load it: Keras
    reads a damaged `.keras` file without an error as long as the archive is intact, and
    LiteRT reads a `.tflite` file whose weights were changed.

    Args:
        path: a file, or the directory of a SavedModel.

    Raises:
        FileNotFoundError: if there is no such file, or no report on it beside it.
        CorruptedFileError: if the file differs: it is damaged or was written again.
    """
    file = checks.existing("path", path)
    if not file.exists():
        raise FileNotFoundError(f"There is no file '{file}'. Received in `path`.")
    if not check_unchanged(file):
        raise FileNotFoundError(
            f"No report beside '{file}' has its checksum: {REPORTS} of `keras-lottery "
            f"find`, or {_card(file).name} of `deploy`. Compare it with a copy."
        )


def check_unchanged(path: Path) -> bool:
    """Whether a report beside a file describes it; checks that the file is unchanged.

    Raises:
        CorruptedFileError: if the file has changed, or the report is damaged.
    """
    path = path.absolute()
    found = False
    for report in (path.with_name(REPORTS), _card(path)):
        for noted in _noted(report):
            own = {n: d for n, d in noted.items() if Path(n).parts[:1] == (path.name,)}
            if own and own != digests_of(path):
                raise CorruptedFileError(
                    f"'{path}' is not the file that '{report}' describes: its checksum "
                    "differs. It was damaged, or written again: restore or export it, "
                    f"or delete '{report.name}' if it is the file that you want."
                )
            found = found or bool(own)
    return found


def _card(path: Path) -> Path:
    return path.with_suffix(".json")


def _noted(report: Path) -> list[dict[str, str]]:
    """The checksums in a report by file; none if it is another kind of file."""
    if not report.is_file() or SEAL.encode() not in report.read_bytes():
        return []
    value = read_sealed(report)
    exports = [value.get("report"), *(value.get("exports") or ())]
    return [each["sha256"] for each in exports if each and "sha256" in each]


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
