"""The outputs of a function for constant channels, found by running it."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_lottery.structured.channels import Call
from keras_lottery.structured.rules.rule import common

# Lengths to try for axes of unknown length, one choice growing and one shrinking from
# axis to axis: a result that differs between them is not constant.
_LENGTHS = (
    lambda axis: 13 + 3 * axis if axis else 2,
    lambda axis: 28 - 3 * axis if axis else 1,
)


def computed(call: Call, at_points: bool = False) -> np.ndarray:
    """Returns the values of constant channels of the only output, and NaN for others.

    An output channel is constant if the channels that it is computed from are.

    Args:
        call: the use of a layer that computes each output channel from the input
            channels of the same index; an input with one channel is broadcast.
        at_points: whether each position is computed from itself alone.
    """
    constant = np.broadcast_arrays(*(tensor.constant for tensor in call.inputs))
    known = np.all(constant, axis=0)
    if not known.any():
        return np.full(len(known), np.nan)
    # The batch axis is an axis like the others: a sum may run over it.
    shapes = [shape[:-1] for shape in call.input_shapes]
    if at_points and not any(_is_image(x) for x in keras.tree.flatten(call.use.args)):
        shapes = [(1,) * len(shape) for shape in shapes]
    lengths = _LENGTHS if any(None in shape for shape in shapes) else _LENGTHS[:1]
    try:
        results = [_run(call, shapes, length) for length in lengths]
    except Exception:  # The backend's error if an operation needs other lengths.
        return np.full(len(known), np.nan)
    return np.where(known, common(np.stack(results)), np.nan)


def _run(call: Call, shapes: list[tuple], length: Callable[[int], int]) -> np.ndarray:
    tensors = []
    for tensor, shape, dtype in zip(
        call.inputs, shapes, call.use.input_dtypes, strict=True
    ):
        sizes = [size or length(axis) for axis, size in enumerate(shape)]
        array = np.broadcast_to(np.nan_to_num(tensor.value), (*sizes, tensor.width))
        tensors.append(ops.convert_to_tensor(array.astype(dtype)))
    result = ops.convert_to_numpy(call.use.compute(tensors)[0])
    return common(result.reshape(-1, result.shape[-1]).astype("float64"))


def _is_image(value: object) -> bool:
    """Whether an argument is an array that differs between positions."""
    shape = getattr(value, "shape", None) or ()
    is_symbol = isinstance(value, keras.KerasTensor)
    return not is_symbol and len(shape) > 1 and math.prod(shape[:-1]) > 1
