"""`recalibrate`: measures the statistics of BatchNormalization layers again."""

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.gradients import length
from keras_lottery.keras_bridge.internals.patches import overridden
from keras_lottery.keras_bridge.layer_inputs import in_batches_of_inputs, inputs_alone
from keras_lottery.keras_bridge.layers.names import walk
from keras_lottery.keras_bridge.layers.recurrent import at_rest
from keras_lottery.keras_bridge.layers.state import read


def recalibrate(model: keras.Model, data: Any, batch_size: int | None = None) -> None:
    """Measures the mean and variance of every BatchNormalization again, in place.

    Pruning changes the inputs of these layers, and without training nothing else
    updates their statistics. Examples are drawn into batches at random; each batch is
    normalised by its own statistics, as in training, and the mean and variance over all
    examples are stored. Masked time steps do not count, and dropout is off. Frozen
    layers are measured too, and weights stay as they are.

    Args:
        model: any built Keras model, masked or not.
        data: some hundred training examples: inputs x as arrays or a dictionary of
            them, or (x, y) or a data set, whose targets are ignored.
        batch_size: examples in a batch, at least a few dozen; by default as many as
            are likely to fit into memory, up to 256. The last batch may be smaller.

    Raises:
        ValueError: if there is no BatchNormalization in the model, or there are no
            examples. The model is then unchanged.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((1,)), keras.layers.BatchNormalization()]
    ... )
    >>> recalibrate(model, np.array([[1.0], [3.0]]))
    >>> [float(v[0]) for v in model.layers[0].non_trainable_variables]
    [2.0, 1.0]
    """
    keras_checks.any_model("model", model)
    kind = keras.layers.BatchNormalization
    layers = [layer for _, layer in walk(model) if isinstance(layer, kind)]
    if not layers:
        checks.refuse("model", "a model with BatchNormalization", model)
    if batch_size is not None:
        checks.count("batch_size", batch_size, 1)
    x = inputs_alone(data, model)
    order = np.random.default_rng(0).permutation(length(x))
    x = keras.tree.map_structure(lambda array: array[order], x)
    sums = {id(layer): np.zeros(3, object) for layer in layers}
    before = [(v, read(v)) for layer in layers for v in _statistics(layer)]

    def normalising(layer: Any) -> Callable[..., Any]:
        call = layer.call

        @functools.wraps(call)
        def normalised(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(call).bind(inputs, *args, **kwargs).arguments
            count, *moments = _moments(layer, inputs, given.get("mask"))
            for variable, value in zip(_statistics(layer), moments, strict=True):
                variable.assign(keras.ops.cast(value, variable.dtype))
            mean, variance = (current().array(m).astype("float64") for m in moments)
            square = variance + mean**2
            sums[id(layer)] += np.array([count, count * mean, count * square], object)
            return call(inputs, *args, **kwargs)

        return normalised

    try:
        with contextlib.ExitStack() as stack:
            for layer in layers:
                stack.enter_context(overridden(layer, "call", normalising(layer)))
            for batch in in_batches_of_inputs(model, x, batch_size):
                with at_rest(model):
                    model(
                        keras.tree.map_structure(keras.ops.convert_to_tensor, batch),
                        training=False,
                    )
    except BaseException:
        for variable, array in before:
            variable.assign(array)
        raise
    for layer in layers:
        count, total, squares = sums[id(layer)]
        if count:  # A layer that no data reach keeps its statistics.
            mean = total / count
            variance = np.maximum(squares / count - mean**2, 0)
            for variable, array in zip(
                _statistics(layer), (mean, variance), strict=True
            ):
                variable.assign(array.astype(read(variable).dtype))


def _moments(layer: Any, inputs: Any, mask: Any) -> tuple[float, Any, Any]:
    """Returns the number of values in each channel, and their mean and variance."""
    inputs = keras.ops.cast(inputs, "float32")
    rank = len(inputs.shape)
    others = [axis for axis in range(rank) if axis != layer.axis % rank]
    if mask is None:
        weights = keras.ops.ones_like(inputs)
    else:
        for _ in range(rank - len(mask.shape)):
            mask = keras.ops.expand_dims(mask, -1)
        weights = keras.ops.broadcast_to(
            keras.ops.cast(mask, "float32"), keras.ops.shape(inputs)
        )
    counts = keras.ops.sum(weights, others, keepdims=True)
    mean = keras.ops.sum(weights * inputs, others, keepdims=True) / counts
    squares = weights * keras.ops.square(inputs - mean)
    variance = keras.ops.sum(squares, others) / keras.ops.reshape(counts, (-1,))
    count = float(current().array(keras.ops.reshape(counts, (-1,)))[0])
    return count, keras.ops.reshape(mean, (-1,)), variance


def _statistics(layer: Any) -> tuple[keras.Variable, keras.Variable]:
    return layer.moving_mean, layer.moving_variance
