"""The data that files are compared on, by name."""

import os
from collections.abc import Callable
from pathlib import Path

from keras_lottery.papers import data
from keras_lottery.papers.data.npz import load_arrays


def load(
    name: str | os.PathLike[str],
    fit: Callable[[data.Splits], bool] = lambda splits: False,
) -> data.Splits:
    """A data set of images and classes, or, of an .npz file, whatever is in it.

    Args:
        name: same as in `kl.data.load`.
        fit: whether the arrays of an .npz file are wanted as they are. By default, and
            where they are not, they are where they are no images and classes.

    Raises:
        FileNotFoundError, ImportError, ValueError: same as `kl.data.load`.
    """
    if Path(name).suffix != ".npz":
        return data.load(name)
    try:
        arrays = load_arrays(Path(name))
    except ValueError:  # `kl.data.load` says what is wrong, or holds a part out.
        return data.load(name)
    if fit(arrays):
        return arrays
    try:
        return data.load(name)
    except ValueError:
        return arrays
