"""Statistics of normalisation, measured again."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.internals.patches import overridden
from keras_lottery.keras_bridge.layer_inputs import in_batches_of_inputs, inputs_alone
from keras_lottery.keras_bridge.layers.names import walk
from keras_lottery.keras_bridge.layers.recurrent import at_rest
from keras_lottery.keras_bridge.layers.state import read


def recalibrate(model: keras.Model, data: Any, batch_size: int | None = None) -> None:
    """Measures the mean and variance of every BatchNormalization again, in place.

    Pruning changes what they normalise, and without training nothing else brings their
    statistics up to date. Each batch is normalised by its own statistics, as in
    training, and what is stored are the means of these over all examples; dropout does
    not drop. Frozen layers are among them, and weights stay as they are.

    Args:
        model: any built Keras model, masked or not.
        data: inputs x, arrays or a dictionary of them, or (x, y) or a data set, whose
            targets are not read: some hundred examples, those of training.
        batch_size: examples in a batch, at least some dozen; by default as many as
            are likely to fit, up to 256. What is over at the end makes a smaller one.

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
    totals: dict[int, list[np.ndarray]] = {id(layer): [] for layer in layers}
    seen = dict.fromkeys(totals, 0)
    before = [(v, read(v)) for layer in layers for v in _statistics(layer)]

    def normalising(layer: Any) -> Callable[..., Any]:
        call = layer.call

        @functools.wraps(call)
        def normalised(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            axis = layer.axis % len(inputs.shape)
            others = [a for a in range(len(inputs.shape)) if a != axis]
            moments = keras.ops.moments(keras.ops.cast(inputs, "float32"), axes=others)
            for variable, value in zip(_statistics(layer), moments, strict=True):
                variable.assign(keras.ops.cast(value, variable.dtype))
            count = len(inputs)
            seen[id(layer)] += count
            batch = [count * read(v).astype("float64") for v in _statistics(layer)]
            old = totals[id(layer)] or [np.zeros_like(array) for array in batch]
            totals[id(layer)] = [a + b for a, b in zip(old, batch, strict=True)]
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
        # One that the data do not reach keeps its own.
        pairs = zip(_statistics(layer), totals[id(layer)], strict=False)
        for variable, total in pairs:
            mean = total / seen[id(layer)]
            variable.assign(mean.astype(read(variable).dtype))


def _statistics(layer: Any) -> tuple[keras.Variable, keras.Variable]:
    return layer.moving_mean, layer.moving_variance
