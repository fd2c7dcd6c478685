"""Gradients of a model's loss, on either backend."""

from typing import Any

import keras
import numpy as np

from keras_lottery.layers import named_variables, strip_masks


def gradients(model: keras.Model, x: Any, y: Any) -> dict[str, np.ndarray]:
    """The gradient of the compiled loss, in inference mode.

    Pruned weights have gradients too: those they would have if they were alive.

    Args:
        model: a compiled masked model.
        x, y: inputs and targets.

    Returns:
        Mapping of each trainable variable's name to an array of its shape.

    Raises:
        ValueError: if the model is not compiled.
    """
    if not model.compiled:
        raise ValueError(
            "Gradients need a loss. Received: a model that is not compiled. "
            "Call `model.compile(loss=...)` first."
        )
    plain = strip_masks(model)
    values = _BACKENDS[keras.backend.backend()](plain, x, y)
    names = {id(variable): name for name, variable in named_variables(plain).items()}
    return {
        names[id(variable)]: np.array(value)
        for variable, value in zip(plain.trainable_variables, values, strict=True)
    }


def _tensorflow(model: keras.Model, x: Any, y: Any) -> list[Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        predictions = model(x, training=False)
        loss = model.compute_loss(x, y, predictions, training=False)
    values = tape.gradient(
        loss,
        [v.value for v in model.trainable_variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    # Those of embeddings come as slices.
    return [tf.convert_to_tensor(value) for value in values]


def _jax(model: keras.Model, x: Any, y: Any) -> list[Any]:
    import jax

    fixed = [(v, v.value) for v in model.non_trainable_variables]

    def loss(values: list[Any]) -> Any:
        trainable = zip(model.trainable_variables, values, strict=True)
        with keras.StatelessScope(state_mapping=[*trainable, *fixed]):
            predictions = model(x, training=False)
            return model.compute_loss(x, y, predictions, training=False)

    return jax.grad(loss)([v.value for v in model.trainable_variables])


_BACKENDS = {"tensorflow": _tensorflow, "jax": _jax}
