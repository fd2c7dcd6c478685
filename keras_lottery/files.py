"""Formats and guarantees of what the library writes: whole or not at all, and checked.

A record is a safetensors file: arrays, masks packed to bits, and an array `meta` that
holds everything else as JSON. Masks and JSON are compressed by zlib, and the file's
metadata is the SHA-256 of all its other bytes. A file is written beside its final place
and then moved there, so that a path holds an old record, a new one, or none. On
reading, the checksum is verified first, nothing is unpickled, and no more memory is
allocated than a file of that size can fill.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import ml_dtypes  # noqa: F401 - by it, NumPy knows bfloat16 and float8
import numpy as np
from filelock import FileLock, Timeout
from safetensors import deserialize, safe_open
from safetensors.numpy import save

from keras_lottery.masks import Masks

FORMAT = 1
LOCK = ".lock"
TEMPORARY = ".writing-"
CANNOT_LOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
SEAL = "sha256"
"""The key of a JSON object's own checksum."""
REMEDY = "Restore the file from a copy, or delete it and run the search again."
# The position of the checksum in a file, after the length and beginning of the header.
_CHECKSUM = 8 + len('{"__metadata__":{"sha256":"')
_REST = _CHECKSUM + 64


class CorruptedFileError(ValueError):
    """A file is not what the library wrote: truncated, damaged, or foreign."""


def write_atomically(
    path: str | os.PathLike, write: Callable[[IO[bytes]], Any]
) -> None:
    """Calls `write` with a file that replaces `path` once it is complete.

    Raises:
        OSError: if it cannot be written, for example because the disk is full; `path`
            is then unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    text = json.dumps(value, indent=2)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: str | os.PathLike) -> Any:
    """Reads JSON.

    Raises:
        CorruptedFileError: if the file holds anything else.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptedFileError(
            f"'{path}' is damaged or incomplete: {error}. {REMEDY}"
        ) from error


def write_sealed(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum over all of it, whole or not at all."""
    value = json.loads(json.dumps(value))
    write_json(path, {**value, SEAL: _seal(value)})


def read_sealed(path: str | os.PathLike) -> dict[str, Any]:
    """Reads and verifies what `write_sealed` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if it was changed since, or not written by `write_sealed`.
    """
    value = read_json(path)
    sealed = isinstance(value, dict) and SEAL in value
    try:
        if sealed and value.pop(SEAL) == _seal(value):
            return value
    except (ValueError, RecursionError):  # It is no text, or nested far too deeply.
        pass
    how = "its checksum differs" if sealed else "it has no checksum"
    raise CorruptedFileError(
        f"'{os.fspath(path)}' is damaged or was not written by keras_lottery: {how}. "
        f"{REMEDY}"
    )


def _seal(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays, including their names, types, shapes and values.

    >>> digest({"a": np.ones(2), "b": np.zeros(2)})[:8]
    '200f64e4'
    """
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.shape} {array.dtype.name} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        "Expected numbers, texts, lists and mappings, which JSON can hold. Received: "
        f"{value!r} of type {type(value).__name__}"
    )


def write_record(
    path: str | os.PathLike,
    meta: Mapping[str, Any],
    states: Mapping[str, Mapping[str, np.ndarray]],
    masks: Masks | None = None,
) -> None:
    """Writes a record.

    Args:
        path: the file to write.
        meta: values that JSON can hold. NumPy's numbers become Python's.
        states: named groups of arrays.
        masks: masks, which are packed to one bit for each weight and compressed.
    """
    contents = {
        "format": FORMAT,
        # This keeps the order of arrays, which the file does not.
        "states": {
            group: {name: array.dtype.name for name, array in state.items()}
            for group, state in states.items()
        },
        "masks": masks and {name: mask.shape for name, mask in masks.items()},
        "meta": dict(meta),
    }
    text = json.dumps(contents, default=_plain_number)
    arrays = {"meta": _compressed(text.encode())}
    for name, mask in (masks or {}).items():
        arrays[f"masks:{name}"] = _compressed(np.packbits(mask))
    for group, state in states.items():
        for name, array in state.items():
            # The oldest NumPy swaps the bytes of bfloat16 wrongly, but casts correctly.
            native = array.dtype.newbyteorder("=")
            arrays[f"{group}:{name}"] = np.asarray(array, native, order="C")
    data = memoryview(save(arrays, {"sha256": " " * 64}))
    assert data[_CHECKSUM:_REST] == b" " * 64, "safetensors has another header"
    parts: list[bytes | memoryview] = [data[:_CHECKSUM], _checksum(data), data[_REST:]]
    write_atomically(path, lambda file: file.writelines(parts))


def read_record(
    path: str | os.PathLike, kind: str
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]], Masks | None]:
    """Reads and verifies a record: its meta, states and masks.

    Args:
        path: the file to read.
        kind: the value that `meta["kind"]` must have.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if the file is damaged, or is no record of this kind.
    """
    with refuse_damage(path):
        data = Path(path).read_bytes()
        if data[_CHECKSUM:_REST] != _checksum(memoryview(data)):
            raise ValueError("its checksum differs")
        arrays = dict(deserialize(data))
        contents = _contents(arrays.pop("meta")["data"], kind)
        states = {
            group: {
                name: _array(arrays.pop(f"{group}:{name}"), dtype)
                for name, dtype in state.items()
            }
            for group, state in contents["states"].items()
        }
        masks = contents["masks"] and Masks(
            {
                name: _unpack(arrays.pop(f"masks:{name}")["data"], shape)
                for name, shape in contents["masks"].items()
            }
        )
        if arrays:
            raise ValueError(f"it holds other arrays: {sorted(arrays)}")
        return contents["meta"], states, masks


def read_meta(path: str | os.PathLike, kind: str) -> dict[str, Any]:
    """Reads only the meta of a record, without its arrays.

    Only the meta's own checksum (that of zlib) is verified. The arguments and errors
    are the same as those of `read_record`.
    """
    with refuse_damage(path), safe_open(path, framework="numpy") as file:
        return _contents(file.get_tensor("meta"), kind)["meta"]


@contextlib.contextmanager
def alone(directory: Path, work: str, patience: float = 0) -> Iterator[None]:
    """Keeps other processes from writing in a directory inside the block.

    The system releases the lock of a process that ends, however it ends. The lock's
    file stays: if it were removed, two processes could lock two files of the same name.

    Args:
        directory: the directory; it is made if it does not exist.
        work: the name of the work that runs there, for the error.
        patience: how many seconds to wait for another process.

    Raises:
        BlockingIOError: if another process is working there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(directory / LOCK, patience)
    except Timeout as error:
        raise BlockingIOError(
            f"Another {work} is running in the directory '{directory}'. "
            "Wait until it ends, or choose another directory."
        ) from error
    try:
        yield
    finally:
        held.release()


def lock(path: Path, patience: float = 0) -> FileLock:
    """Locks a file until it is released or the process ends, however it ends.

    Args:
        path: the file; it is made if it does not exist.
        patience: how many seconds to wait for another process.

    Raises:
        filelock.Timeout: if another process still holds it after `patience` seconds.
        OSError: if the file system cannot lock. A file as a mark would be no
            substitute, because it would stay if its process is killed.
    """
    found = FileLock(path, timeout=patience, fallback_to_soft=False)
    try:
        found.acquire()
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise
        raise OSError(
            error.errno,
            "Expected a file system that locks files, so that processes do not write "
            f"over each other. Received: '{path.parent}', where the system answers "
            f"{error.strerror!r}. Choose a directory on another file system.",
        ) from error
    return found


@contextlib.contextmanager
def refuse_damage(path: str | os.PathLike) -> Iterator[None]:
    """Turns any error in parsing a file into CorruptedFileError."""
    try:
        yield
    except OSError:  # The file could not be read at all.
        raise
    # A damaged file may raise any error of safetensors, zlib, NumPy or json.
    except Exception as error:
        raise CorruptedFileError(
            f"'{os.fspath(path)}' is damaged or was not written by keras_lottery: "
            f"{error!r}"
        ) from error


def _compressed(data: Any) -> np.ndarray:
    return np.frombuffer(zlib.compress(data), np.uint8)


def _checksum(data: memoryview) -> bytes:
    """The checksum of a file's bytes except those of the checksum itself."""
    checksum = hashlib.sha256(data[:_CHECKSUM])
    checksum.update(data[_REST:])
    return checksum.hexdigest().encode()


def _contents(packed: Any, kind: str) -> dict[str, Any]:
    contents = json.loads(zlib.decompress(packed))
    if contents["format"] != FORMAT or contents["meta"]["kind"] != kind:
        raise ValueError(
            f"Expected a {kind} of format {FORMAT}. Received: "
            f"{contents['meta']['kind']} of format {contents['format']}"
        )
    return contents


def _array(found: Mapping[str, Any], dtype: str) -> np.ndarray:
    return np.frombuffer(found["data"], dtype).reshape(found["shape"])


def _unpack(packed: Any, shape: Sequence[int]) -> np.ndarray:
    size, bits = math.prod(shape), np.frombuffer(zlib.decompress(packed), np.uint8)
    if len(bits) != math.ceil(size / 8):
        raise ValueError(f"{len(bits)} bytes for a mask of shape {shape}")
    return np.unpackbits(bits, count=size).astype(bool).reshape(shape)
