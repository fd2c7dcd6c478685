"""States that stateful recurrent layers keep from batch to batch, and fixed batches."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers.names import walk


def recurrent_states(model: keras.Model) -> list[keras.Variable]:
    """The states of stateful layers. Keras counts them among no layer's variables."""
    return [
        state
        for _, layer in walk(model)
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(getattr(layer, "states", None) or ())
        if isinstance(state, keras.Variable)
    ]


def batch_size_of(model: keras.Model) -> int | None:
    """The number of examples in every batch of a model, if it is fixed."""
    inputs = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    states = [tuple(state.shape) for state in recurrent_states(model)]
    sizes = {shape[0] for shape in (*inputs, *states) if shape} - {None}
    return min(sizes) if sizes else None


def check_whole_batches(model: keras.Model, examples: int) -> None:
    """Raises ValueError unless the examples fill batches of a fixed size, if any."""
    size = batch_size_of(model)
    if size is not None and (not examples or examples % size):
        raise ValueError(
            f"Model '{model.name}' takes batches of {size} examples. Expected a "
            f"multiple of that. Received: {examples} examples"
        )


@contextlib.contextmanager
def at_rest(model: Any) -> Iterator[None]:
    """Inside, recurrent states start at zero; afterwards they are as they were."""
    states = recurrent_states(model)
    before = [np.array(keras.ops.convert_to_numpy(state)) for state in states]
    try:
        for state in states:
            state.assign(keras.ops.zeros(state.shape, state.dtype))
        yield
    finally:
        for state, array in zip(states, before, strict=True):
            state.assign(array)
