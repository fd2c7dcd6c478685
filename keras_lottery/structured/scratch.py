"""Is it the weights, or the smaller architecture? A pruned model, trained again."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    redraw,
    set_state,
)
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.removal import compact, plain_copy
from keras_lottery.structured.rules import Lookup, PerChannel, rule_for

DENSE = (layers.Dense, layers.EinsumDense)
CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


@dataclass(frozen=True)
class Start:
    """A smaller model, and how long to train it.

    Attributes:
        model: with the weights to start from; compiled if the pruned model is.
        epochs: as many as the dense model's training, or as cost as much.
    """

    model: keras.Model
    epochs: int


def scratch(
    model: keras.Model, initial: State, epochs: int, seed: int = 0
) -> dict[str, Start]:
    """What a pruned and compacted model is held against: itself, trained from scratch.

    Args:
        model: a masked model, whose masks have pruned units and filters.
        initial: the state that it was first trained from, see `get_state`.
        epochs: for how many it was.
        seed: of the new weights.

    Returns:
        Three starts of the model that `compact(model)` returns:

        - `"original"`: the initial weights of the units that are left, and as many
          epochs as the dense model had;
        - `"scratch_e"`: new weights of the smaller model's own initialisers, and as
          many epochs;
        - `"scratch_b"`: the same weights, and as many epochs as cost what the dense
          training did, by `multiply_adds`.

    Raises:
        ValueError: if the model is not masked or is a subclassed model, or `initial`
            is the state of another.

    Reference:
        Liu et al. 2019, "Rethinking the value of network pruning", section 3.

    Example:

    >>> import keras_lottery as kl
    >>> from keras_lottery.keras_bridge.layers import get_state
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> initial = get_state(model)
    >>> kl.prune(model, 0.5, granularity="filter")
    >>> {name: start.epochs for name, start in scratch(model, initial, 10).items()}
    {'original': 10, 'scratch_e': 10, 'scratch_b': 21}
    """
    if epochs < 1:
        raise ValueError(f"Expected at least 1 epoch. Received: epochs={epochs}")
    get_masks(model)
    small = compact(model)
    drawn = redraw(small, seed)
    own = get_state(model)
    try:
        set_state(model, initial)
        original = compact(model)
    finally:
        set_state(model, own)
    budget = epochs * multiply_adds(model) / multiply_adds(small)
    starts = {
        "original": Start(original, epochs),
        "scratch_e": Start(_with(small, drawn), epochs),
        "scratch_b": Start(_with(small, drawn), round(budget)),
    }
    return starts


def multiply_adds(model: keras.Model) -> int:
    """The multiplications of one forward pass, of one example.

    Those of Dense, EinsumDense and convolutions; zeros count like any weight. Warns of
    other layers with kernels, such as recurrent ones and attention: theirs are left
    out.

    Raises:
        ValueError: if it is a subclassed model, or sizes of its inputs are not known.

    >>> import keras_lottery as kl
    >>> multiply_adds(kl.models.lenet_300_100())  # 266,610 without the biases
    266200
    """
    graph = Graph(plain_copy(model), rule_for)
    total, left_out = 0, {}
    for call in graph.calls:
        layer, rule = call.layer, graph.rules[id(call.layer)]
        sizes = [math.prod(v.shape) for v in _kernels(layer)]
        if type(layer) not in (*DENSE, *CONVOLUTIONS, *TRANSPOSED):
            if sizes and not isinstance(rule, PerChannel | Lookup):
                left_out[graph.name(layer)] = type(layer).__name__
            continue
        transposed = type(layer) in TRANSPOSED
        shape = (call.input_shapes if transposed else call.output_shapes)[0][1:]
        if None in shape:
            raise ValueError(
                f"Expected a model whose inputs have fixed sizes. Received: shape "
                f"{shape} at layer '{graph.name(layer)}'."
            )
        if isinstance(layer, layers.EinsumDense):
            terms, result = layer.equation.split("->")
            letters = zip(terms.split(",")[1], layer.kernel.shape, strict=True)
            summed = [size for letter, size in letters if letter not in result]
            total += math.prod(shape) * math.prod(summed)
            continue
        first = getattr(layer, "data_format", None) == "channels_first"
        total += math.prod(shape[1:] if first else shape[:-1]) * sum(sizes)
    if left_out:
        warnings.warn(
            "Only the multiplications of Dense, EinsumDense and convolutions are "
            f"counted. Left out: {left_out}.",
            stacklevel=2,
        )
    return total


def _kernels(layer: Any) -> list[Any]:
    """The weights that a layer multiplies by; a function of `keras.ops` has none."""
    if isinstance(layer, layers.LayerNormalization | layers.Normalization):
        return []
    return [v for v in getattr(layer, "weights", ()) if len(v.shape) > 1]


def _with(model: keras.Model, state: State) -> keras.Model:
    """A copy with another state."""
    new = duplicate(model)
    compile_alike(model, new)
    set_state(new, state)
    return new
