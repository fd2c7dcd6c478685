"""Adversarial examples: inputs that are changed so that a network errs."""

from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.fits import part_of
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.gradients import input_gradients, training_arrays
from keras_lottery.study.analysis.evaluation import borrowed


def fast_gradient_sign(
    model: keras.Model, data: Any, epsilon: float, batch_size: int = 256
) -> Any:
    """Adversarial examples by one step along the sign of the loss's gradient.

    Each value of each example moves by `epsilon`, up or down, whichever increases the
    loss to first order: x + epsilon * sign(dL / dx). The result is not clipped; clip it
    if only some values make sense, for example with `np.clip(result, 0, 1)`.

    Args:
        model: a compiled model, masked or not. It is not changed.
        data: (x, y) as arrays or structures of them, or a data set, which is read
            whole. All inputs must be floats.
        epsilon: how far a value moves, in the units of x.
        batch_size: the number of examples whose gradients are computed at once.

    Returns:
        The changed inputs, in the structure, shapes and types of x.

    Raises:
        ValueError: if an argument is out of range, the model is not compiled, the data
            do not fit it, or an input is not of floats.
        FloatingPointError: if a gradient is not finite.

    Reference:
        Goodfellow et al., [Explaining and harnessing adversarial examples](
        https://arxiv.org/abs/1412.6572), 2015, section 4.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.layers[0].set_weights([np.array([[1.0], [-1.0]]), np.zeros(1)])
    >>> model.compile(loss="mse")
    >>> data = np.zeros((1, 2), "float32"), np.ones((1, 1))
    >>> fast_gradient_sign(model, data, epsilon=0.5)
    array([[-0.5,  0.5]], dtype=float32)
    """
    keras_checks.compiled("model", model)
    checks.number("epsilon", epsilon, 0)
    checks.count("batch_size", batch_size, 1)
    with borrowed(model):
        part_of("data", model, data)
    x, y = training_arrays(data)
    kinds = [array.dtype.name for array in keras.tree.flatten(x)]
    if not all("float" in kind for kind in kinds):
        form = "floats, whose inputs can be changed a little"
        checks.refuse("data", form, ", ".join(kinds))
    slopes = input_gradients(model, x, y, batch_size)
    return keras.tree.map_structure(
        lambda array, slope: (array + epsilon * np.sign(slope)).astype(array.dtype),
        x,
        slopes,
    )
