"""Activations that treat each channel by itself."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

# Other activations mix channels, such as softmax, or may do anything.
_ELEMENTWISE = (
    keras.activations.celu,
    keras.activations.elu,
    keras.activations.exponential,
    keras.activations.gelu,
    keras.activations.hard_shrink,
    keras.activations.hard_sigmoid,
    keras.activations.hard_silu,
    keras.activations.hard_tanh,
    keras.activations.leaky_relu,
    keras.activations.linear,
    keras.activations.log_sigmoid,
    keras.activations.mish,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.selu,
    keras.activations.sigmoid,
    keras.activations.silu,
    keras.activations.soft_shrink,
    keras.activations.softplus,
    keras.activations.softsign,
    keras.activations.sparse_plus,
    keras.activations.sparse_sigmoid,
    keras.activations.squareplus,
    keras.activations.tanh,
    keras.activations.tanh_shrink,
    keras.activations.threshold,
)

# These are known by their registered names.
_ELEMENTWISE_ELSEWHERE = ("keras_hub>gelu_approximate",)


def is_elementwise(activation: Any) -> bool:
    """Whether an activation is known to treat each element by itself."""
    kinds = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
    if type(activation) in kinds or activation in _ELEMENTWISE:
        return True
    return (
        inspect.isfunction(activation)
        and keras.saving.get_registered_name(activation) in _ELEMENTWISE_ELSEWHERE
    )


def apply(function: Callable[[Any], Any], values: np.ndarray) -> np.ndarray:
    """Returns the function's values as Keras computes them, at Keras's precision."""
    tensor = ops.convert_to_tensor(values[np.newaxis].astype("float32"))
    result = ops.convert_to_numpy(function(tensor))
    return result[0].astype("float64")
