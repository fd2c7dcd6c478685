"""Gradients with respect to all weights, including pruned ones, during training."""

from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.gradients import (
    compiled_once,
    gradients,
    length,
    training_arrays,
    training_loss,
)
from keras_lottery.keras_bridge.layers import named_masks
from keras_lottery.keras_bridge.layers.recurrent import (
    batch_size_of,
    check_whole_batches,
)
from keras_lottery.tickets.allocation import Scores


class DenseGradients:
    """Computes |∂L/∂w| of all masked weights, on a batch that is drawn at each call.

    L is the loss of a training step, including dropout, but without sample weights and
    penalties, since the slope of a regulariser at zero says nothing about a weight.
    Moving averages and the states of random generators stay as they are.

    Args:
        model: a masked model.
        data: (x, y), arrays or structures of them.
        batch_size: examples in a batch, if there are as many. If the model's batches
            have a fixed size, that size is used instead.

    Raises:
        ValueError: if there are no data, x and y differ in length, the model does not
            accept them, or `batch_size` is below 1.
    """

    def __init__(self, model: keras.Model, data: Any, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(
                f"Expected batch_size >= 1. Received: batch_size={batch_size}"
            )
        self.model = model
        self.data = training_arrays(data)
        self.size = length(self.data)
        fixed = batch_size_of(model)
        self.batch_size = fixed or min(batch_size, self.size)
        # The first call fills this.
        self._compiled: dict[Any, Any] = {}
        # Not kept: Keras makes the variables of metrics in the first step.
        try:
            if fixed and fixed > self.size:
                check_whole_batches(model, self.size)
            x, y = _each(lambda array: array[: fixed or 1], self.data)
            gradients(model, x, y, scalar=training_loss)
        except Exception as error:
            shapes = _each(np.shape, self.data)
            raise ValueError(
                "Expected data that the model trains on, for gradients by its weights. "
                f"Received: `data` of shapes {shapes}: {error}"
            ) from error

    def __call__(self, rng: np.random.Generator) -> Scores:
        chosen = rng.choice(self.size, self.batch_size, replace=False)
        x, y = _each(lambda array: array[chosen], self.data)
        with compiled_once(self._compiled):
            found = gradients(self.model, x, y, self.batch_size, training_loss)
        return {name: np.abs(found[name]) for name in named_masks(self.model)}


def _each(function: Any, structure: Any) -> Any:
    """Applies a function to each array of a structure, which may be None."""
    return keras.tree.map_structure(
        lambda array: None if array is None else function(array), structure
    )
