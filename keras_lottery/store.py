"""Files: every path, format and guarantee of what the library writes.

A record is one .npz file: arrays, masks packed to bits, and a JSON of everything
else. It is written beside its place and moved there whole, so that a path holds an
old record, a new one, or none; each member's checksum is verified on reading, and
nothing is ever unpickled.
"""

import contextlib
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from keras_lottery.masks import Masks

FORMAT = 1
_TEMPORARY = ".writing-"


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
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
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


def write_record(
    path: str | os.PathLike,
    meta: Mapping[str, Any],
    states: Mapping[str, Mapping[str, np.ndarray]],
    masks: Masks | None = None,
) -> None:
    """Writes a record.

    Args:
        path: where to.
        meta: what JSON can hold.
        states: named groups of arrays.
        masks: masks, packed to one bit a weight.
    """
    arrays = {
        f"{group}:{name}": array
        for group, state in states.items()
        for name, array in state.items()
    }
    for name, mask in (masks or {}).items():
        arrays[f"masks:{name}"] = np.packbits(mask)
    header = {
        "format": FORMAT,
        "groups": list(states),
        "dtypes": {key: array.dtype.name for key, array in arrays.items()},
        "mask_shapes": masks and {name: mask.shape for name, mask in masks.items()},
        "meta": dict(meta),
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


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
    with open(path, "rb") as file:
        try:
            return _parse_record(file, kind)
        # Damage comes to light as any error of zipfile, NumPy or json.
        except Exception as error:
            raise CorruptedFileError(
                f"'{os.fspath(path)}' is damaged or was not written by keras_lottery: "
                f"{error!r}"
            ) from error


def _parse_record(
    file: IO[bytes], kind: str
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]], Masks | None]:
    with np.load(file, allow_pickle=False) as members:
        # Reading an array need not reach the end of its member, where the CRC is.
        if damaged := members.zip.testzip():
            raise ValueError(f"{damaged} fails its checksum")
        arrays = {name: members[name] for name in members.files}
    header = json.loads(arrays.pop("header").tobytes())
    meta, shapes, dtypes = (
        header["meta"],
        header["mask_shapes"],
        header.get("dtypes", {}),
    )
    if header["format"] != FORMAT or meta["kind"] != kind:
        raise ValueError(
            f"Expected a {kind} of format {FORMAT}. Received: {meta['kind']} of format "
            f"{header['format']}"
        )
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
        {
            name: np.unpackbits(packed[name], count=math.prod(shape))
            .astype(bool)
            .reshape(shape)
            for name, shape in shapes.items()
        }
    )
    return meta, states, masks


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

    def initial(self, replicate: int) -> Path:
        """The weights that a replicate starts from."""
        return self._replicate(replicate) / "initial.npz"

    def training(self, unit: Unit) -> Path:
        """What one training gave."""
        folder = self._replicate(unit.replicate) / f"level_{unit.level:02}"
        return folder / f"{unit.variant}_{unit.trial}.npz"

    def _replicate(self, replicate: int) -> Path:
        return self.directory / f"replicate_{replicate}"

    def clean(self) -> None:
        """Removes what a killed process was writing."""
        for path in self.directory.rglob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the search, and nothing else that the directory may hold."""
        for path in sorted(self.directory.glob("replicate_*/**/*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        for path in self.directory.glob("replicate_*"):
            path.rmdir()
        for path in (self.settings, self.results):
            path.unlink(missing_ok=True)
