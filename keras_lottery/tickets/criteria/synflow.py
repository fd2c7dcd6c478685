"""The flow through a weight: what the network alone says, without data."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_lottery.keras_bridge.gradients import gradients
from keras_lottery.keras_bridge.internals.layers import computing_in
from keras_lottery.keras_bridge.internals.patches import overridden
from keras_lottery.keras_bridge.layers import State, walk
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.criterion import in_rounds

# Linear, they pass on what they are given.
_PASSED = (
    layers.ELU,
    layers.LeakyReLU,
    layers.Normalization,
    layers.PReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.Softmax,
)
# What is added to a sum of weighted inputs.
_ADDED = ("beta", "bias", "moving_mean")


@in_rounds(100)
def synflow(snapshot: Snapshot) -> Scores:
    """|w| ∂R/∂|w|, R = 1ᵀ (Π_l |W_l|) 1: keeps the weights that most flow goes through.

    R is the sum of the outputs of the network made linear, its weights' magnitudes in
    their place, for an input of ones, in float32 whatever the dtype policies say.
    Activations, the head's too, are left out, biases are zero, and BatchNorm is in
    inference mode: a factor |γ|/σ. Of data, only shapes are looked at, if there are
    any.

    As much flow goes out of each hidden unit as comes in, and pruning in rounds the
    least of it leaves no layer empty as long as that can be.

    Raises:
        ValueError: if the network is not linear without its activations (of
            LayerNormalization, attention and gates, say, R is not made), or no flow
            reaches the outputs.

    Reference:
        Tanaka et al. 2020, "Pruning neural networks without any data by iteratively
        conserving synaptic flow": the objective R_SF, and algorithm 1.

    Example:

    >>> import keras_lottery as kl
    >>> model = kl.mask_model(kl.models.lenet_300_100((8, 8, 1)))
    >>> kl.prune(model, 0.99, "synflow", rounds=5)
    >>> round(kl.get_sparsity(model), 3)
    0.99
    """
    if snapshot.model is None:
        raise ValueError(
            "The criterion 'synflow' needs the model. Received: a snapshot without "
            "one, as mask_epochs='auto' makes them. Choose a number of epochs."
        )
    model, magnitudes = snapshot.model, _magnitudes(snapshot)
    try:
        with _linear(model):
            found = gradients(
                model, _ones_and_twos(snapshot), None, objective=_flow, state=magnitudes
            )
    except FloatingPointError as error:
        raise ValueError(
            "SynFlow needs a network that is linear without its activations, and "
            "products of its weights that float32 can hold, and their slopes the dtype "
            f"of its variables. Received: model '{model.name}' of dtype policy "
            f"'{model.dtype_policy.name}', which is not. Choose another criterion, "
            "such as 'snip', or variables of float32."
        ) from error
    scores = {name: magnitudes[name] * found[name] for name in snapshot.masks}
    if not any(score.any() for score in scores.values()):
        raise ValueError(
            "SynFlow found no path of weights from the inputs to the outputs that are "
            f"not zero. Received: model '{model.name}', {snapshot.masks}"
        )
    return scores


def _flow(model: keras.Model, x: Any, y: Any) -> Any:
    """R; NaN if twice the input does not give twice of it."""
    outputs = keras.tree.flatten(model(x, training=False))
    outputs = [ops.cast(output, "float32") for output in outputs]
    flow, double = (sum(ops.sum(output[i]) for output in outputs) for i in (0, 1))
    linear = ops.abs(double - 2 * flow) <= 0.01 * flow
    return flow * ops.where(linear, 1.0, np.nan)


def _magnitudes(snapshot: Snapshot) -> State:
    def magnitude(name: str, array: np.ndarray) -> np.ndarray:
        if "float" not in str(array.dtype):
            return array
        added = re.sub(r"_\d+$", "", name.rpartition("/")[2]) in _ADDED
        return np.zeros_like(array) if added else np.abs(array)

    return {name: magnitude(name, array) for name, array in snapshot.final.items()}


def _ones_and_twos(snapshot: Snapshot) -> Any:
    """Two inputs, of the shapes of the data or of the model's inputs."""
    model, data = snapshot.model, snapshot.data
    one = isinstance(model, keras.Sequential)
    inputs = data[0] if data else getattr(model, "inputs" if one else "input", None)
    parts = keras.tree.flatten(inputs)
    if inputs is None or any(None in part.shape[1:] for part in parts):
        raise ValueError(
            "SynFlow needs to know the shapes of the inputs. Pass `data=(x, y)` to "
            f"`prune`. Received: model={model!r}"
        )

    def two(part: Any) -> np.ndarray:
        ones = np.ones(
            (1, *part.shape[1:]), keras.backend.standardize_dtype(part.dtype)
        )
        return np.concatenate([ones, 2 * ones])

    arrays = keras.tree.map_structure(two, inputs)
    return arrays[0] if one and not data else arrays


@contextlib.contextmanager
def _linear(model: keras.Model) -> Iterator[None]:
    """Inside, the model's layers have no activations, and compute in float32."""
    float32 = keras.DTypePolicy("float32")
    with contextlib.ExitStack() as stack:
        for _, layer in walk(model):
            if layer.dtype_policy.quantization_mode is None:
                stack.enter_context(computing_in(layer, float32))
            if isinstance(layer, _PASSED):
                stack.enter_context(overridden(layer, "call", _same))
            elif callable(vars(layer).get("activation")):
                stack.enter_context(overridden(layer, "activation", _same))
        yield


def _same(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x
