"""The flow through a weight (SynFlow), which needs no data."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_lottery.keras_bridge.gradients import gradients, holding
from keras_lottery.keras_bridge.internals.layers import computing_in
from keras_lottery.keras_bridge.internals.patches import overridden
from keras_lottery.keras_bridge.layers import State, walk
from keras_lottery.keras_bridge.layers.recurrent import at_rest, batch_size_of
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.criterion import in_rounds

# In the linear network, these layers return their inputs.
_PASSED = (
    layers.ELU,
    layers.LeakyReLU,
    layers.Normalization,
    layers.PReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.Softmax,
)
# Variables that a layer adds to a weighted sum of inputs.
_ADDED = ("beta", "bias", "moving_mean")


@in_rounds(100)
def synflow(snapshot: Snapshot) -> Scores:
    """|w| ∂R/∂|w|, R = 1ᵀ (Π_l |W_l|) 1: keeps the weights that most flow goes through.

    R is the sum of the outputs of a linear version of the network for an input of ones.
    In that version, weights are replaced by their magnitudes, activations are left out,
    that of the head too, biases are zero, and BatchNorm in inference mode multiplies by
    |γ|/σ. R is computed in float32 whatever the dtype policies say, or in float64 if
    variables are float64. If R is too large for that, as in deep networks, the scores
    are a multiple of the formula's. If there are data, only their shapes are used.

    The flow into each hidden unit equals the flow out of it, and pruning the smallest
    flows in rounds therefore empties no layer as long as that can be avoided.

    Raises:
        ValueError: if the network is not linear without its activations (R is not
            defined for LayerNormalization, attention or gates, say), if no flow reaches
            the outputs, or if the flow is too large even as a multiple.

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
    model, magnitudes = snapshot.model, _magnitudes(snapshot)
    if model is None:
        raise ValueError(
            "The criterion 'synflow' needs the model. Received: a snapshot without "
            "one, as mask_epochs='auto' makes them. Choose a number of epochs."
        )
    with _linear(model):
        found = _slopes(model, _ones_and_twos(model, snapshot), magnitudes)
    scores = {
        name: (magnitudes[name] * found[name].astype("float64"))
        for name in snapshot.masks
    }
    if not any(score.any() for score in scores.values()):
        raise ValueError(
            "SynFlow found no path of weights from the inputs to the outputs that are "
            f"not zero. Received: model '{model.name}', {snapshot.masks}"
        )
    return scores


def _slopes(model: keras.Model, x: Any, magnitudes: State) -> dict[str, np.ndarray]:
    """Returns ∂R/∂|w|, or a multiple of it if R is too large to be computed."""
    wrong = [n for n, array in magnitudes.items() if not np.isfinite(array).all()]
    if wrong:
        raise ValueError(
            f"SynFlow needs finite weights. Received: NaN or infinity in {wrong}"
        )
    with contextlib.suppress(FloatingPointError):
        return gradients(model, x, None, scalar=_flow, state=magnitudes)
    x, factors = _scaled(model, x, magnitudes)
    try:
        return gradients(model, x, factors, scalar=_flow, state=magnitudes)
    except FloatingPointError as error:
        dtypes = sorted({layer.variable_dtype for _, layer in walk(model)})
        raise ValueError(
            "The slopes of SynFlow's flow are beyond what the dtype of the variables "
            f"holds. Received: model '{model.name}' with variables of {dtypes}. Build "
            "it with variables of float32, or of float64."
        ) from error


def _scaled(model: keras.Model, x: Any, magnitudes: State) -> tuple[Any, np.ndarray]:
    """Returns a smaller input, and a factor for each output, that make R equal to 1.

    R is proportional to both. The values of the forward and the backward pass then lie
    between 1/√R and √R, instead of between 1 and R.
    """

    def scale(by: float) -> Any:
        floats = lambda array: array.dtype.kind == "f"  # noqa: E731
        return keras.tree.map_structure(
            lambda array: (array * by).astype(array.dtype) if floats(array) else array,
            x,
        )

    for exponent in (0, -15, -30):
        with holding(model, magnitudes), at_rest(model):
            flow, double = map(float, map(read, _flows(model, scale(10.0**exponent))))
        if np.isfinite([flow, double]).all():
            break
    else:
        raise ValueError(
            f"SynFlow's flow through model '{model.name}', the products of the weights "
            "of its layers, is beyond what its dtype holds, even for inputs of 1e-30. "
            'Build the model in float64 (`keras.config.set_floatx("float64")`), or '
            "with smaller initial weights."
        )
    if not flow or abs(double - 2 * flow) > 0.01 * flow:
        raise ValueError(
            "SynFlow needs a network that is linear without its activations, as one "
            "with LayerNormalization, attention or gates is not. Received: model "
            f"'{model.name}', whose flow is {flow:.3g}, and {double:.3g} for twice the "
            "input. Choose another criterion, such as 'snip'."
        )
    half = 10 ** -((math.log10(flow) - exponent) / 2)
    return scale(half), np.full(len(keras.tree.flatten(x)[0]), half)


def _flow(model: keras.Model, x: Any, y: Any) -> Any:
    """Returns R, times the first factor of y if any; NaN if R is not linear in x."""
    flow, double = _flows(model, x, 1 if y is None else y[0])
    linear = ops.abs(double - 2 * flow) <= 0.01 * flow
    return flow * ops.cast(ops.where(linear, 1.0, np.nan), flow.dtype)


def _flows(model: keras.Model, x: Any, factor: Any = 1) -> tuple[Any, Any]:
    """Returns R for the input, and for twice the input."""
    if keras.tree.flatten(x)[0].shape[0] == 1:
        twice = keras.tree.map_structure(lambda part: 2 * part, x)
        one, other = (model(each, training=False) for each in (x, twice))
        return _sum(one, 0, factor), _sum(other, 0, factor)
    outputs = model(x, training=False)
    return _sum(outputs, 0, factor), _sum(outputs, 1, factor)


def _sum(outputs: Any, row: int, factor: Any) -> Any:
    """Returns the sum of one row of all outputs."""
    outputs = keras.tree.flatten(outputs)
    double = any(output.dtype == "float64" for output in outputs)
    dtype = "float64" if double else "float32"
    if isinstance(factor, int):
        return sum(ops.sum(ops.cast(output, dtype)[row]) for output in outputs)
    factor = ops.cast(factor, dtype)
    return sum(ops.sum(factor * ops.cast(output, dtype)[row]) for output in outputs)


def _magnitudes(snapshot: Snapshot) -> State:
    def magnitude(name: str, array: np.ndarray) -> np.ndarray:
        if "float" not in str(array.dtype):
            return array
        added = re.sub(r"_\d+$", "", name.rpartition("/")[2]) in _ADDED
        return np.zeros_like(array) if added else np.abs(array)

    return {name: magnitude(name, array) for name, array in snapshot.final.items()}


def _ones_and_twos(model: keras.Model, snapshot: Snapshot) -> Any:
    """Returns an input of ones and twice it, shaped as the model's inputs or the data.

    If the batch size is fixed, ones fill up the batch; a batch of one example holds the
    ones alone.
    """
    one = isinstance(model, keras.Sequential)
    inputs = getattr(model, "inputs" if one else "input", None)
    if _unknown(inputs) and snapshot.data is not None:
        inputs, one = snapshot.training_data()[0], False
    if _unknown(inputs):
        raise ValueError(
            "SynFlow needs to know the shapes of the inputs. Pass `data=(x, y)` to "
            f"`prune`. Received: model={model!r}"
        )

    def two(part: Any) -> np.ndarray:
        dtype = keras.backend.standardize_dtype(part.dtype)
        array = np.ones((batch_size_of(model) or 2, *part.shape[1:]), dtype)
        array[1:2] = 2
        return array

    arrays = keras.tree.map_structure(two, inputs)
    return arrays[0] if one else arrays


def _unknown(inputs: Any) -> bool:
    """Whether a dimension of the inputs other than the batch size is unknown."""
    return inputs is None or any(
        None in part.shape[1:] for part in keras.tree.flatten(inputs)
    )


@contextlib.contextmanager
def _linear(model: keras.Model) -> Iterator[None]:
    """Inside this context, layers have no activations and use at least float32."""
    with contextlib.ExitStack() as stack:
        for _, layer in walk(model):
            if layer.dtype_policy.quantization_mode is None:
                double = layer.variable_dtype == "float64"
                policy = keras.DTypePolicy("float64" if double else "float32")
                stack.enter_context(computing_in(layer, policy))
            if isinstance(layer, _PASSED):
                stack.enter_context(overridden(layer, "call", _same))
            elif callable(vars(layer).get("activation")):
                stack.enter_context(overridden(layer, "activation", _same))
        yield


def _same(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x
