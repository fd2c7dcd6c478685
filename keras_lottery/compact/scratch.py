"""Is it the weights, or the smaller architecture? A pruned model, trained again."""

import math
from dataclasses import dataclass

import keras

from keras_lottery.compact.graph import Graph
from keras_lottery.compact.layer_rules import rule_for
from keras_lottery.compact.removal import compact, plain_copy
from keras_lottery.compact.rules import Depthwise, Linear
from keras_lottery.layers import State, get_masks, get_state, redraw, set_state
from keras_lottery.layers.convert import compile_alike
from keras_lottery.layers.copying import copy_model


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
        initial: the state that it was first trained from, as of `get_state`.
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
    >>> from keras_lottery.layers import get_state
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> initial = get_state(model)
    >>> kl.prune_filters(model, 0.5)
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

    Those of Dense layers and convolutions; zeros count like any weight.

    Raises:
        ValueError: if it is a subclassed model, or sizes of its inputs are not known.

    >>> import keras_lottery as kl
    >>> multiply_adds(kl.models.lenet_300_100())  # 266,610 without the biases
    266200
    """
    graph = Graph(plain_copy(model), rule_for)
    total = 0
    for call in graph.calls:
        layer = call.layer
        if not isinstance(graph.rules[id(layer)], Linear | Depthwise):
            continue
        transposed = "Transpose" in type(layer).__name__
        shape = (call.input_shapes if transposed else call.output_shapes)[0][1:]
        if None in shape:
            raise ValueError(
                f"Expected a model whose inputs have fixed sizes. Received: shape "
                f"{shape} at layer '{graph.name(layer)}'."
            )
        first = getattr(layer, "data_format", None) == "channels_first"
        places = math.prod(shape[1:] if first else shape[:-1])
        kernels = [v for v in layer.variables if len(v.shape) > 1]
        total += places * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


def _with(model: keras.Model, state: State) -> keras.Model:
    """A copy with another state."""
    new = copy_model(model)
    compile_alike(model, new)
    set_state(new, state)
    return new
