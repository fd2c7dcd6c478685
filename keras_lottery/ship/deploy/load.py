"""Loads by name the data on which files are compared."""

import os
from collections.abc import Callable
from pathlib import Path

from keras_lottery import data
from keras_lottery.data.npz import load_arrays


def load(
    name: str | os.PathLike[str],
    fit: Callable[[data.Splits], bool] = lambda splits: False,
) -> data.Splits:
    """Loads a data set of images and classes, or any arrays of an .npz file.

    Args:
        name: same as in `kl.data.load`.
        fit: decides whether the arrays of an .npz file are returned as they are. If it
            says no, and by default, they are returned as they are only if they are no
            images and classes.

    Raises:
        FileNotFoundError, ImportError, ValueError: same as `kl.data.load`.
    """
    if Path(name).suffix != ".npz":
        return data.load(name)
    try:
        arrays = load_arrays(Path(name))
    except ValueError:  # `kl.data.load` raises a clear error, or holds out a part.
        return data.load(name)
    if fit(arrays):
        return arrays
    try:
        return data.load(name)
    except ValueError:
        return arrays
