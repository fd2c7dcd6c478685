"""Training, validation and test arrays, and how a part is held out of another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_lottery import checks

Arrays = tuple[np.ndarray, np.ndarray]
"""Images and labels."""

Size = int | float
"""A number of examples, or a share of them between 0 and 1."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set of images or texts and their classes, in three parts.

    Args:
        name: the data set's name.
        x_train: images of shape (n, height, width, channels), float32. So are
            `x_validation` and `x_test`.
        y_train: classes of shape (n,), int32. So are `y_validation` and `y_test`.
        input_shape: (height, width, channels), or (words,).
        classes: number of classes; they count from 0.

    Your own data, for `kl.deploy`, may be whatever your model takes: other arrays, or
    dictionaries of arrays. They need no `input_shape` and no `classes`.
    """

    name: str
    x_train: Any = field(repr=False)
    y_train: Any = field(repr=False)
    x_validation: Any = field(repr=False)
    y_validation: Any = field(repr=False)
    x_test: Any = field(repr=False)
    y_test: Any = field(repr=False)
    input_shape: tuple[int, ...] = ()
    classes: int = 0

    @property
    def train(self) -> Arrays:
        """(x, y) for training."""
        return self.x_train, self.y_train

    @property
    def validation(self) -> Arrays:
        """(x, y) for choosing."""
        return self.x_validation, self.y_validation

    @property
    def test(self) -> Arrays:
        """(x, y) for reporting."""
        return self.x_test, self.y_test

    def averaged(self, size: int) -> "Splits":
        """The same data in smaller images: each pixel is the mean of `size` x `size`.

        Args:
            size: the number of pixels to average in height and in width; it must divide
                the size of the images.

        Raises:
            ValueError: if it does not, or the data are not images.

        Example:

        >>> from keras_lottery import data
        >>> data.load("digits").averaged(2)
        Splits(name='digits_4x4', input_shape=(4, 4, 1), classes=10)
        """
        checks.count("size", size, 1)
        shape = self.input_shape
        if len(shape) != 3 or shape[0] % size or shape[1] % size:
            form = f"a divisor of the sides of images, of shape {shape} here"
            checks.refuse("size", form, size)
        height, width, channels = shape[0] // size, shape[1] // size, shape[2]

        def average(x: np.ndarray) -> np.ndarray:
            blocks = x.reshape(len(x), height, size, width, size, channels)
            return blocks.mean((2, 4), dtype=x.dtype)

        return replace(
            self,
            name=f"{self.name}_{height}x{width}",
            input_shape=(height, width, channels),
            x_train=average(self.x_train),
            x_validation=average(self.x_validation),
            x_test=average(self.x_test),
        )


def make_splits(
    name: str,
    parts: Mapping[str, Arrays],
    classes: int,
    validation: Size | None,
    default: Size,
    seed: int,
    stratify: bool = False,
) -> Splits:
    """Checks raw arrays, and turns them into a data set with a validation part.

    Args:
        name: the data set's name.
        parts: "train", "test" and, if the data set has one, "validation".
        classes: number of classes.
        validation: the validation part to hold out of "train", if the user asked for
            one.
        default: the part to hold out otherwise.
        seed: chooses the examples that are held out.
        stratify: whether to keep the distribution of the classes.

    Raises:
        ValueError: if the arrays do not fit together, or a validation part is asked
            for although the data set has one.
    """
    shape = parts["train"][0].shape[1:]
    for part, (x, y) in parts.items():
        _check(name, part, x, y, shape, classes)
    parts = dict(parts)
    if "validation" not in parts:
        size = default if validation is None else validation
        parts["train"], parts["validation"] = hold_out(
            parts["train"], size, seed, stratify
        )
    elif validation is not None:
        raise ValueError(
            f"Expected validation=None, as the data set {name!r} has a validation part "
            f"of its own. Received: validation={validation}. Leave it out."
        )
    scaled = {f"x_{part}": scale(x) for part, (x, _) in parts.items()}
    labels = {f"y_{part}": y.astype(np.int32) for part, (_, y) in parts.items()}
    return Splits(name=name, input_shape=shape, classes=classes, **scaled, **labels)


def hold_out(
    arrays: Arrays, size: Size, seed: int, stratify: bool = False
) -> tuple[Arrays, Arrays]:
    """Holds out random examples; returns the other examples, and the held-out ones."""
    from sklearn.model_selection import train_test_split

    x, y = arrays
    held = math.ceil(size * len(x)) if isinstance(size, float) else size
    least = len(np.unique(y)) if stratify else 1  # One of each class.
    if isinstance(size, bool) or not least <= held <= len(x) - least:
        raise ValueError(
            f"Expected `validation` to be a number of examples, from {least} to "
            f"{len(x) - least} of the {len(x)} of the training set, or a share of them "
            f"between 0 and 1. Received: validation={size}."
        )
    x_left, x_held, y_left, y_held = train_test_split(
        x, y, test_size=size, random_state=seed, stratify=y if stratify else None
    )
    return (x_left, y_left), (x_held, y_held)


def scale(images: np.ndarray) -> np.ndarray:
    """Scales unsigned integers to float32 in [0, 1]; casts floats to float32."""
    if np.issubdtype(images.dtype, np.unsignedinteger):
        largest = np.float32(np.iinfo(images.dtype).max)
        return np.divide(images, largest, dtype=np.float32)
    return images.astype(np.float32)


def _check(
    name: str,
    part: str,
    x: np.ndarray,
    y: np.ndarray,
    shape: tuple[int, ...],
    classes: int,
) -> None:
    def require(condition: bool, expected: str, received: str) -> None:
        if not condition:
            raise ValueError(
                f"Expected {expected} in the data set {name!r}. Received: {received}."
            )

    require(
        x.ndim == 4 and x.shape[1:] == shape,
        f"x_{part} of shape (n, height, width, channels), as in x_train",
        f"shape {x.shape}, and (n, {', '.join(map(str, shape))}) in x_train",
    )
    require(
        x.dtype.kind in "uf",
        f"x_{part} of unsigned integers, which are scaled to [0, 1], or of floats",
        f"dtype {x.dtype}",
    )
    require(
        y.ndim == 1 and y.dtype.kind in "iu",
        f"y_{part} of integer classes of shape (n,)",
        f"shape {y.shape}, dtype {y.dtype}",
    )
    require(
        0 < len(x) == len(y),
        f"as many images in x_{part} as labels in y_{part}, and some",
        f"{len(x)} images, {len(y)} labels",
    )
    require(
        x.dtype.kind == "u" or bool(np.isfinite(x).all()),
        f"x_{part} of finite numbers",
        "NaN or infinity",
    )
    require(
        y.min() >= 0 and y.max() < classes,
        f"y_{part} of classes between 0 and {classes - 1}",
        f"labels from {y.min()} to {y.max()}",
    )
