"""The data with which a model is shrunk: for training, choosing and reporting."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery import data as datasets
from keras_lottery.data.npz import load_parts
from keras_lottery.engines.data import check_data

SHARE = 0.1
"""The share of the training examples that is held out for a missing part."""

FEWEST = 10
"""The least number of examples that can be split."""

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Material:
    """The parts of the data, which are all `None` if there are no data.

    Attributes:
        examples: inputs for calibration.
        train, validation, test: (x, y), or `None` if there are no targets.
        said: where the data came from, for the card.
    """

    examples: Any = None
    train: Pair | None = None
    validation: Pair | None = None
    test: Pair | None = None
    said: str = "none"


def material(data: Any) -> Material:
    """Splits data into parts; missing ones are held out from the training examples.

    Args:
        data: `None`; the name of a data set; an .npz file with `x_train`, `y_train` and
            optionally the same for `validation` and `test`, where several inputs or
            outputs are named `x_train/name`; `Splits`; a pair (x, y); or inputs alone,
            an array or a dictionary by name.

    Raises:
        FileNotFoundError: if there is no such data set.
        ValueError: if it is anything else, or too small to be split.
    """
    if data is None:
        return Material()
    if isinstance(data, str | os.PathLike):
        checks.existing("data", data)
        if Path(data).suffix != ".npz":
            return material(datasets.load(data))
        if not Path(data).is_file():
            raise FileNotFoundError(f"There is no file '{data}'. Received in `data`.")
        parts, said = load_parts(Path(data)), str(data)
    elif isinstance(data, datasets.Splits):
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        said = data.name
    elif isinstance(data, tuple | list) and len(data) == 2:
        parts, said = {"train": (data[0], data[1])}, "arrays"
    elif isinstance(data, Mapping) or hasattr(data, "shape"):
        parts, said = {"train": (data, None)}, "arrays"
    else:
        checks.refuse("data", "a data set's name, Splits, (x, y) or inputs x", data)
    if parts.get("train", (None,))[0] is None:
        raise ValueError(
            f"Expected `data` with inputs x_train. Received: {said} with "
            f"{', '.join(parts) or 'no known arrays'}."
        )
    x, y = parts["train"]
    if y is None:
        return Material(examples=x, said=said)
    return _split(parts, said)


def _split(parts: dict[str, Pair], said: str) -> Material:
    for name, part in parts.items():
        if part[0] is None or part[1] is None:
            raise ValueError(
                f"Expected x and y of the {name} examples. Received: one of them alone."
            )
        arrays = keras.tree.map_structure(np.asarray, tuple(part))
        check_data(f"`{name}`", arrays)
        parts[name] = arrays
    train = parts["train"]
    size = len(keras.tree.flatten(train)[0])
    missing = [name for name in ("test", "validation") if name not in parts]
    if missing and size < FEWEST:
        raise ValueError(
            f"Expected `data` of at least {FEWEST} examples, of which some are held out"
            f". Received: {size}."
        )
    order = np.random.default_rng(0).permutation(size)
    for name in missing:
        held, order = np.split(order, [max(1, round(SHARE * size))])
        parts[name] = _rows(train, held)
    if missing:
        train = _rows(train, np.sort(order))
    return Material(train[0], train, parts["validation"], parts["test"], said)


def _rows(part: Pair, rows: np.ndarray) -> Pair:
    x, y = keras.tree.map_structure(lambda array: array[rows], tuple(part))
    return x, y
