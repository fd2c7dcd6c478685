"""Data sets in .npz files."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from keras_lottery import checks
from keras_lottery.data.splits import Arrays, Size, Splits, make_splits


def load_npz(path: Path, validation: Size | None, seed: int) -> Splits:
    """Loads a data set from an .npz file; nothing in it is unpickled."""
    arrays = _read(checks.existing_file("name", path))
    parts = {"train": _part(arrays, path, "train"), "test": _part(arrays, path, "test")}
    if "x_validation" in arrays or "y_validation" in arrays:
        parts["validation"] = _part(arrays, path, "validation")
    y = parts["train"][1]
    classes = 1 + int(max(y.max(initial=0) for _, y in parts.values()))
    known = len(np.unique(y)) if y.dtype.kind in "iu" else classes
    if classes > 10 * max(known, 10):
        raise ValueError(
            f"Expected labels that count classes from 0 on in {path}. Received: labels "
            f"up to {classes - 1}, of which y_train has {known}. Number them anew: "
            "np.unique(y, return_inverse=True)."
        )
    return make_splits(
        path.stem,
        parts,
        classes=classes,
        validation=validation,
        default=0.1,
        seed=seed,
    )


def load_arrays(path: Path) -> Splits:
    """The arrays of an .npz file as they are, of any shape and type.

    Several inputs or outputs have names: `y_train/age`, `y_train/name`.
    """
    found = load_parts(path)
    missing = [
        f"{side}_{part}"
        for part in PARTS
        for side, array in zip("xy", found.get(part, (None, None)), strict=True)
        if array is None
    ]
    if missing:
        _refuse(path, list(_read(path)), missing)
    train, validation, test = (found[part] for part in PARTS)
    return Splits(path.stem, *train, *validation, *test)


PARTS = "train", "validation", "test"


def load_parts(path: Path) -> dict[str, tuple[Any, Any]]:
    """The parts of an .npz file, (x, y) by the part's name.

    `x` and `y` without a part's name are the training part. A missing part is `None`.
    """
    arrays = _read(checks.existing_file("name", path))
    sides: dict[str, Any] = {}
    for key, array in arrays.items():
        side, _, name = key.partition("/")
        side = f"{side}_train" if side in ("x", "y") else side
        if name:
            sides.setdefault(side, {})[name] = array
        else:
            sides[side] = array
    return {
        part: (sides.get(f"x_{part}"), sides.get(f"y_{part}"))
        for part in PARTS
        if f"x_{part}" in sides or f"y_{part}" in sides
    }


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"Expected an .npz file of plain arrays. Received: {path} ({error}). Write "
            "it with np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
        ) from error


def _arrays(arrays: dict[str, np.ndarray], path: Path, part: str) -> Arrays:
    missing = [key for key in (f"x_{part}", f"y_{part}") if key not in arrays]
    if missing:
        _refuse(path, list(arrays), missing)
    return arrays[f"x_{part}"], arrays[f"y_{part}"]


def _refuse(path: Path, found: list[str], missing: list[str]) -> NoReturn:
    raise ValueError(
        f"Expected x_train, y_train, x_test, y_test and, if wanted, x_validation "
        f"and y_validation in {path}. Received: {', '.join(found)}, without "
        f"{' and '.join(missing)}."
    )


def _part(arrays: dict[str, np.ndarray], path: Path, part: str) -> Arrays:
    x, y = _arrays(arrays, path, part)
    # The form of Keras's own data sets: grey images without channels, labels (n, 1).
    x = x[..., np.newaxis] if x.ndim == 3 else x
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    return x, y
