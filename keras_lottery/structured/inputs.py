"""The inputs of a model, in the order in which its graph takes them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.graph import inputs_of


def arrays_of(model: keras.Model, x: Any) -> tuple[list[np.ndarray], list[str]]:
    """Returns the arrays in the order of the model's inputs, and the inputs' dtypes.

    Raises:
        ValueError: if the arrays do not fit the model's inputs, or differ in length.
    """
    structure = inputs_of(model)
    # Keras finds inputs by key if the model takes a dictionary.
    tensors = {
        path[-1] if path and isinstance(path[-1], str) else tensor.name: tensor
        for path, tensor in keras.tree.flatten_with_path(structure)
    }
    if isinstance(x, Mapping):
        given = [x[name] for name in tensors if name in x]
    else:
        keyed = len(tensors) > 1 and isinstance(structure, dict)
        given = [] if keyed else keras.tree.flatten(x)
    arrays = [np.asarray(array) for array in given]
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if (
        len(arrays) != len(shapes)
        or len({array.shape[:1] for array in arrays}) != 1
        or not all(map(_fits, arrays, shapes))
    ):
        raise ValueError(
            "Expected `data` to be inputs x, or (x, y), with the same number of rows, "
            "at least one, for each input of "
            f"{dict(zip(tensors, shapes, strict=True))}. Received: "
            f"{[array.shape for array in arrays] or type(x).__name__}. Pass an "
            "array for a model of one input, else a dictionary of arrays by name."
        )
    return arrays, [tensor.dtype for tensor in tensors.values()]


def _fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) and all(
        got == wanted or (wanted is None and got > 0)
        for got, wanted in zip(array.shape, (None, *shape[1:]), strict=True)
    )
