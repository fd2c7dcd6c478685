"""Files: the formats and guarantees of what the library writes.

A record is one .npz file: arrays, masks packed to bits, and a JSON of everything
else; the archive's comment is a checksum of all the bytes before it. It is written
beside its place and moved there whole, so that a path holds an old record, a new one,
or none. On reading, the checksum is verified, nothing is unpickled, and no more memory
is taken than a file of that size can fill. Format 1, without the checksum, is still
read.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_lottery.masks import Masks

FORMAT = 2
TEMPORARY = ".writing-"
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64
# How many times larger than stored a member can be: 1,032 is the most of deflate.
_EXPANSION = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}


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
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise CorruptedFileError(f"'{path}' is not whole: {error}") from error


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
    arrays = {
        f"{group}:{name}": array
        for group, state in states.items()
        for name, array in state.items()
    }
    header = {
        "format": FORMAT,
        "groups": list(states),
        "dtypes": {key: array.dtype.name for key, array in arrays.items()},
        "mask_shapes": masks and {name: mask.shape for name, mask in masks.items()},
        "meta": dict(meta),
    }
    packed = {f"masks:{n}": np.packbits(mask) for n, mask in (masks or {}).items()}
    text = json.dumps(header, default=_plain_number)
    packed["header"] = np.frombuffer(text.encode(), np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = bytes(_SEAL_LENGTH)
        for name, array in (arrays | packed).items():
            # Made of nothing but the record: without today's date.
            member = zipfile.ZipInfo(f"{name}.npy")
            if name in packed:  # The digits of weights do not compress.
                member.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getbuffer())
    sealed = buffer.getbuffer()[:-_SEAL_LENGTH]
    write_atomically(path, lambda file: file.writelines([sealed, _seal(sealed)]))


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
    data = Path(path).read_bytes()
    with refuse_damage(path):
        sealed, seal = memoryview(data)[:-_SEAL_LENGTH], data[-_SEAL_LENGTH:]
        is_sealed = seal.startswith(_SEAL)
        if is_sealed and seal != _seal(sealed):
            raise ValueError("its checksum is another")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_sizes(archive, len(data))
            header = _read_header(archive, kind)
            if not is_sealed and header["format"] > 1:
                raise ValueError("it has no checksum")
            arrays = {
                member.removesuffix(".npy"): _read_array(archive, member)
                for member in archive.namelist()
                if member != "header.npy"
            }
        return _parse(header, arrays)


def read_meta(path: str | os.PathLike, kind: str) -> dict[str, Any]:
    """A record's meta alone, without reading its arrays.

    Only the meta's own checksum is verified. Arguments and errors are those of
    `read_record`.
    """
    size = os.stat(path).st_size
    with refuse_damage(path), zipfile.ZipFile(path) as archive:
        _check_sizes(archive, size)
        return _read_header(archive, kind)["meta"]


@contextlib.contextmanager
def refuse_damage(path: str | os.PathLike) -> Iterator[None]:
    """Raises CorruptedFileError for whatever goes wrong in parsing a file."""
    try:
        yield
    # Damage comes to light as any error of zipfile, NumPy or json.
    except Exception as error:
        raise CorruptedFileError(
            f"'{os.fspath(path)}' is damaged or was not written by keras_lottery: "
            f"{error!r}"
        ) from error


def _seal(content: bytes | memoryview) -> bytes:
    """The comment at the end of a record's archive: a checksum of all before it."""
    return _SEAL + hashlib.sha256(content).hexdigest().encode()


def _check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError if members claim to hold more than a file so large can."""
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members):
        raise ValueError("members have the same name")
    if sum(member.compress_size for member in members) > size:
        raise ValueError("members are larger than the file")
    for member in members:
        if member.compress_type not in _EXPANSION:
            raise ValueError(f"{member.filename} is compressed in an unknown way")
        most = member.compress_size * _EXPANSION[member.compress_type]
        if member.file_size > most:
            raise ValueError(f"{member.filename} claims to be larger than it can be")


def _read_header(archive: zipfile.ZipFile, kind: str) -> dict[str, Any]:
    header = json.loads(_read_array(archive, "header.npy").tobytes())
    if header["format"] not in range(1, FORMAT + 1) or header["meta"]["kind"] != kind:
        raise ValueError(
            f"Expected a {kind} of format 1 to {FORMAT}. Received: "
            f"{header['meta']['kind']} of format {header['format']}"
        )
    return header


def _read_array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    content = io.BytesIO(archive.read(member))
    np.lib.format.read_magic(content)
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    held = len(content.getbuffer()) - content.tell()
    # NumPy would make room for what the shape says.
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{member} holds {held} bytes, not {shape} of {dtype}")
    content.seek(0)
    return np.lib.format.read_array(content, allow_pickle=False)


def _parse(
    header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]], Masks | None]:
    shapes, dtypes = header["mask_shapes"], header.get("dtypes", {})
    if missing := dtypes.keys() - arrays.keys():
        raise ValueError(f"arrays are missing: {sorted(missing)}")
    states: dict[str, dict[str, np.ndarray]] = {g: {} for g in header["groups"]}
    packed: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        # NumPy files know no bfloat16: it comes back as bytes.
        array = array.view(dtypes[key]) if array.dtype.kind == "V" else array
        group, name = key.split(":", 1)
        (packed if group == "masks" else states[group])[name] = array
    masks = shapes and Masks(
        {name: _unpack(packed[name], shape) for name, shape in shapes.items()}
    )
    return header["meta"], states, masks


def _unpack(packed: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    size = math.prod(shape)
    if packed.shape != (math.ceil(size / 8),):
        raise ValueError(f"{packed.shape} bytes for a mask of shape {shape}")
    return np.unpackbits(packed, count=size).astype(bool).reshape(shape)
