"""Following the graph of a Sequential or Functional model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.graph import (
    functional,
    has_graph,
    nodes_in_order,
    nodes_of,
)

# The lengths of a tensor's axes; `None` for an unknown one, such as the batch's.
Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Use:
    """One use of a layer in a graph.

    Attributes:
        layer: the layer, or the function of `keras.ops`.
        input_shapes, output_shapes: the shapes of its input and output tensors.
        input_dtypes: the dtypes of its input tensors.
        args, kwargs: the arguments that it is called with, including symbolic tensors.
        compute: calls the layer on values for its input tensors, with the other
            arguments of this use, and returns its outputs as a list.
    """

    layer: Any
    input_shapes: list[Shape]
    output_shapes: list[Shape]
    input_dtypes: list[str]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    compute: Callable[[list[Any]], list[Any]]


def run(
    model: keras.Model,
    inputs: Sequence[Any],
    call: Callable[[Use, list[Any]], Sequence[Any]],
    enter: Callable[[keras.Model, list[Any]], None] = lambda nested, inputs: None,
) -> list[Any]:
    """Propagates values of any kind through a model and the models nested in it.

    Args:
        model: a Sequential or Functional model.
        inputs: a value for each of the model's inputs.
        call: `(use, inputs) -> outputs` for each use of a layer.
        enter: called with each use of a nested model and the values of its inputs.

    Returns:
        A value for each of the model's outputs.
    """
    known = dict(zip(map(id, model.inputs), inputs, strict=True))
    for node in nodes_in_order(model):
        values = [known[id(tensor)] for tensor in node.input_tensors]
        if has_graph(node.operation):
            enter(node.operation, values)
            outputs = run(node.operation, values, call, enter)
        else:
            outputs = list(call(_use(node), values))
        known.update(zip(map(id, node.outputs), outputs, strict=True))
    return [known[id(tensor)] for tensor in model.outputs]


def inputs_of(model: keras.Model) -> Any:
    """Returns the symbolic inputs of a model, in the structure that it expects."""
    return functional(model).input


def pack_outputs(model: keras.Model, values: Sequence[Any]) -> Any:
    """Packs values of a model's outputs into the structure that the model returns."""
    return keras.tree.pack_sequence_as(functional(model).output, list(values))


def input_layers(model: keras.Model) -> list[keras.layers.InputLayer]:
    """Returns the layers that a model's inputs come from, in their order."""
    layers = {
        id(layer.output): layer
        for layer in functional(model).operations
        if isinstance(layer, keras.layers.InputLayer)
    }
    return [layers[id(tensor)] for tensor in model.inputs]


def output_shapes(layer: Any) -> list[Shape]:
    """Returns the shapes of a layer's outputs in all its uses in a graph."""
    return [tuple(x.shape) for node in nodes_of(layer) for x in node.outputs]


def parent(layer: Any) -> Any:
    """Returns the layer whose output a layer reads in its first use.

    It returns `None` if the layer reads several layers, reads none, as inputs do, or is
    in no graph.
    """
    parents = [one for node in nodes_of(layer)[:1] for one in node.parent_nodes]
    return parents[0].operation if len(parents) == 1 else None


def _use(node: Any) -> Use:
    return Use(
        node.operation,
        [tuple(tensor.shape) for tensor in node.input_tensors],
        [tuple(tensor.shape) for tensor in node.outputs],
        [tensor.dtype for tensor in node.input_tensors],
        node.arguments.args,
        node.arguments.kwargs,
        partial(_compute, node),
    )


def _compute(node: Any, values: list[Any]) -> list[Any]:
    known = dict(zip(map(id, node.input_tensors), values, strict=True))
    args, kwargs = node.arguments.fill_in(known)
    return keras.tree.flatten(node.operation(*args, **kwargs))
