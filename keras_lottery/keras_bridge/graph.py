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

# The lengths of a tensor's axes, `None` where they are not known, as the batch's is.
Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Use:
    """A layer in one place of a graph.

    Attributes:
        layer: the layer, or the function of `keras.ops`.
        input_shapes, output_shapes: those of the tensors that it reads and makes.
        input_dtypes: of the tensors that it reads.
        args, kwargs: what it is called with, symbolic tensors among it.
        compute: calls the layer on values for the tensors that it reads, with the other
            arguments that it has here, and returns its outputs as a list.
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
    """Runs through a model, and through those nested in it, with values of any kind.

    Args:
        model: a Sequential or Functional model.
        inputs: a value for each of its inputs.
        call: `(use, inputs) -> outputs` for each use of a layer.
        enter: called with each use of a nested model and what it reads.

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
    """The symbolic inputs of a model, in the structure in which it takes them."""
    return functional(model).input


def pack_outputs(model: keras.Model, values: Sequence[Any]) -> Any:
    """Values of a model's outputs, in the structure in which it returns them."""
    return keras.tree.pack_sequence_as(functional(model).output, list(values))


def input_layers(model: keras.Model) -> list[keras.layers.InputLayer]:
    """The layers that a model's inputs come from, in their order."""
    layers = {
        id(layer.output): layer
        for layer in functional(model).operations
        if isinstance(layer, keras.layers.InputLayer)
    }
    return [layers[id(tensor)] for tensor in model.inputs]


def output_shapes(layer: Any) -> list[Shape]:
    """The shapes of what a layer makes, wherever it is used in a graph."""
    return [tuple(x.shape) for node in nodes_of(layer) for x in node.outputs]


def parent(layer: Any) -> Any:
    """The layer that a layer reads where it is used first.

    `None` if it reads several or, as inputs do, none, or is in no graph.
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
