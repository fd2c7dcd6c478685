"""The cost of a forward pass of a model."""

import math
import warnings
from typing import Any

import keras
from keras import layers

from keras_lottery.structured.graph import Graph
from keras_lottery.structured.removal import plain_copy
from keras_lottery.structured.rules import Lookup, PerChannel, rule_for

DENSE = (layers.Dense, layers.EinsumDense)
CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


def multiply_adds(model: keras.Model) -> int:
    """Returns the number of multiplications in a forward pass of one example.

    The multiplications of Dense, EinsumDense and convolutions are counted; weights that
    are zero count like any others. Other layers with kernels, such as recurrent ones
    and attention, are left out, and a warning names them.

    Raises:
        ValueError: if it is a subclassed model, or sizes of its inputs are not known.

    >>> import keras_lottery as kl
    >>> multiply_adds(kl.models.lenet_300_100())  # 266,610 without the biases
    266200
    """
    graph = Graph(plain_copy(model), rule_for)
    layers_of = {id(rule.layer): rule.layer for rule in graph.rules.values()}
    return sum(
        times * sum(math.prod(kernel.shape) for kernel in kernels(layers_of[number]))
        for number, times in uses(graph).items()
    )


def uses(graph: Graph) -> dict[int, int]:
    """Returns how often a forward pass uses each entry of a layer's kernels.

    Returns:
        The number of uses, by the `id` of each layer that `multiply_adds` counts.
    """
    times: dict[int, int] = {}
    left_out = {}
    for call in graph.calls:
        layer, rule = call.layer, graph.rules[id(call.layer)]
        if type(layer) not in (*DENSE, *CONVOLUTIONS, *TRANSPOSED):
            if kernels(layer) and not isinstance(rule, PerChannel | Lookup):
                left_out[graph.name(layer)] = type(layer).__name__
            continue
        transposed = type(layer) in TRANSPOSED
        shape = (call.input_shapes if transposed else call.output_shapes)[0][1:]
        if None in shape:
            raise ValueError(
                f"Expected a model whose inputs have fixed sizes. Received: shape "
                f"{shape} at layer '{graph.name(layer)}'."
            )
        first = getattr(layer, "data_format", None) == "channels_first"
        places = math.prod(shape[1:] if first else shape[:-1])
        if isinstance(layer, layers.EinsumDense):
            # Letters of the kernel that are also in the result are axes of the output.
            terms, result = layer.equation.split("->")
            letters = zip(terms.split(",")[1], layer.kernel.shape, strict=True)
            kept = [size for letter, size in letters if letter in result]
            places = math.prod(shape) // math.prod(kept)
        times[id(layer)] = times.get(id(layer), 0) + places
    if left_out:
        warnings.warn(
            "Only the multiplications of Dense, EinsumDense and convolutions are "
            f"counted. Left out: {left_out}.",
            stacklevel=3,
        )
    return times


def kernels(layer: Any) -> list[Any]:
    """Returns the weights a layer multiplies by; a function of `keras.ops` has none."""
    if isinstance(layer, layers.LayerNormalization | layers.Normalization):
        return []
    return [v for v in getattr(layer, "weights", ()) if len(v.shape) > 1]
