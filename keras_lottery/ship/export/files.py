"""Paths, sizes, and files that appear whole or not at all."""

import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_lottery import checks


def file_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """The path of a file to write, or ValueError if it cannot be one."""
    return checks.path("path", path, (suffix,))


def saved_model_path(path: str | os.PathLike[str]) -> Path:
    """The path of a SavedModel to write, or ValueError.

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
    """Yields a path to write to, which replaces `path` when the block ends well.

    If the block raises, nothing is left behind and an older file stays as it was.
    """
    created = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Beside the target, since only within one file system is a rename atomic.
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
    # No rename replaces a directory that is not empty: move it out of the way first.
    os.replace(path, aside)
    try:
        os.replace(draft, path)
    except BaseException:
        os.replace(aside, path)
        raise


def size_of(path: Path) -> int:
    """Bytes on disk; of a directory, the sum of its files."""
    return sum(file.stat().st_size for file in _files(path))


def gzip_size_of(path: Path) -> int:
    """Bytes after gzip, file by file."""
    return sum(len(gzip.compress(file.read_bytes())) for file in _files(path))


def digests_of(path: Path) -> dict[str, str]:
    """The SHA-256 of a file, or of each file of a directory, by its name.

    Names are as seen from the folder that the path lies in.
    """
    return {
        file.relative_to(path.parent).as_posix(): hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
        for file in sorted(_files(path))
    }


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
