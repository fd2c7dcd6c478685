"""The states of stateful recurrent layers, and fixed batch sizes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers.names import walk


def recurrent_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of stateful layers, which no layer's `variables` includes."""
    return [
        state
        for _, layer in walk(model)
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(getattr(layer, "states", None) or ())
        if isinstance(state, keras.Variable)
    ]


def batch_size_of(model: keras.Model) -> int | None:
    """Returns the batch size of a model if it is fixed, else None."""
    inputs = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    states = [tuple(state.shape) for state in recurrent_states(model)]
    sizes = {shape[0] for shape in (*inputs, *states) if shape} - {None}
    return min(sizes) if sizes else None


def check_whole_batches(model: keras.Model, examples: int) -> None:
    """Raises ValueError if the batch size is fixed and the last batch is not full."""
    size = batch_size_of(model)
    if size is not None and (not examples or examples % size):
        raise ValueError(
            f"Model '{model.name}' takes batches of {size} examples. Expected a "
            f"multiple of that. Received: {examples} examples"
        )


@contextlib.contextmanager
def at_rest(model: Any) -> Iterator[None]:
    """Inside, recurrent states start at zero; afterwards they are restored."""
    states = recurrent_states(model)
    before = [np.array(keras.ops.convert_to_numpy(state)) for state in states]
    try:
        for state in states:
            state.assign(keras.ops.zeros(state.shape, state.dtype))
        yield
    finally:
        for state, array in zip(states, before, strict=True):
            state.assign(array)
