"""Formats and guarantees of what the library writes: whole or not at all, and checked.

A record is a safetensors file: arrays, masks packed to bits, and an array `meta` that
holds a JSON of everything else. Masks and JSON are compressed by zlib, and the file's
metadata is the SHA-256 of all its other bytes. A file is written beside its place and
moved there whole, so that a path holds an old record, a new one, or none. On reading,
the checksum is verified first, nothing is unpickled, and no more memory is taken than a
file of that size can fill.
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
# Where a file's checksum begins, after the header's length and beginning, and ends.
_CHECKSUM = 8 + len('{"__metadata__":{"sha256":"')
_REST = _CHECKSUM + 64


class CorruptedFileError(ValueError):
    """A file is not what the library wrote: truncated, damaged, or foreign."""


def write_atomically(
    path: str | os.PathLike, write: Callable[[IO[bytes]], Any]
) -> None:
    """Calls `write` with a file that takes the place of `path` once it is whole.

    Raises:
        OSError: if it cannot be written (a full disk, say); `path` is then unchanged.
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
        CorruptedFileError: if it was changed since, or written by something else.
    """
    value = read_json(path)
    sealed = isinstance(value, dict) and SEAL in value
    try:
        if sealed and value.pop(SEAL) == _seal(value):
            return value
    except (ValueError, RecursionError):  # texts that are none, or far too deep
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
    """A SHA-256 of arrays: of their names, types, shapes and values.

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
        path: where to.
        meta: what JSON can hold, and NumPy's numbers, which come back as Python's.
        states: named groups of arrays.
        masks: masks, packed to one bit a weight and compressed.
    """
    contents = {
        "format": FORMAT,
        # In this order, which is not that of the file.
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
            # The oldest NumPy swaps the bytes of bfloat16 wrongly, but casts it right.
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
        path: where from.
        kind: what `meta["kind"]` must be.

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
    """A record's meta alone, without reading its arrays.

    Only the meta's own checksum (zlib's) is verified. Arguments and errors are those
    of `read_record`.
    """
    with refuse_damage(path), safe_open(path, framework="numpy") as file:
        return _contents(file.get_tensor("meta"), kind)["meta"]


@contextlib.contextmanager
def alone(directory: Path, work: str, patience: float = 0) -> Iterator[None]:
    """Keeps others from writing in a directory meanwhile.

    The system takes the lock from a process that ends, however it does. Its file stays:
    to remove it would let two processes lock two files of one name.

    Args:
        directory: which; it is made if it does not exist.
        work: what the error calls that which runs there.
        patience: seconds to wait for its end.

    Raises:
        BlockingIOError: if another one is running there.
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
    """Locks a file until it is released, or the process ends, however it does.

    Args:
        path: the file; it is made if it does not exist.
        patience: seconds to wait for another process.

    Raises:
        filelock.Timeout: if another process still holds it after `patience` seconds.
        OSError: if the file system cannot lock. A file that marks what is locked is
            no substitute: it would stay when its process is killed.
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
    """Raises CorruptedFileError for whatever goes wrong in parsing a file."""
    try:
        yield
    except OSError:  # It could not be read at all.
        raise
    # Damage comes to light as any error of safetensors, zlib, NumPy or json.
    except Exception as error:
        raise CorruptedFileError(
            f"'{os.fspath(path)}' is damaged or was not written by keras_lottery: "
            f"{error!r}"
        ) from error


def _compressed(data: Any) -> np.ndarray:
    return np.frombuffer(zlib.compress(data), np.uint8)


def _checksum(data: memoryview) -> bytes:
    """Of a file, without the place of the checksum itself."""
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
