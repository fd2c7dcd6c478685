"""The channels of a model: which are constant, which are needed, which go together.

A channel is an entry of a tensor's last axis: a unit of a Dense layer, a filter of a
convolution. Channels of different tensors that can only be removed together, such as
those that a residual connection adds up, make a group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_lottery.keras_bridge.layers import walk

if TYPE_CHECKING:
    from keras_lottery.structured.rules import Rule


@dataclass(eq=False)
class Tensor:
    """What is known about the channels of one tensor.

    Args:
        atoms: a number for each channel; equal numbers are one channel.
        value: the channel's value where it is the same for every input and at every
            position, else NaN.
        needed: whether the model's outputs depend on the channel, beyond what is
            folded into the layers that read it.
    """

    atoms: np.ndarray
    value: np.ndarray = field(init=False)
    needed: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.value = np.full(self.width, np.nan)
        self.needed = np.zeros(self.width, bool)

    @property
    def width(self) -> int:
        """The number of channels; 0 if the last axis has no known length."""
        return len(self.atoms)

    @property
    def constant(self) -> np.ndarray:
        """Which channels have a known value."""
        return ~np.isnan(self.value)


@dataclass(eq=False)
class Call:
    """A layer and the tensors that it reads and makes in one place of the model."""

    layer: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    input_shapes: list[tuple[Any, ...]]
    output_shapes: list[tuple[Any, ...]]


class Graph:
    """A model as a list of calls, those inside nested models among them.

    Args:
        model: a built Sequential or Functional model without masks.
        rule_for: makes the rule of a layer from the layer and its first call.
    """

    def __init__(
        self, model: keras.Model, rule_for: Callable[[Any, Call], "Rule"]
    ) -> None:
        self.model = model
        self.calls: list[Call] = []
        self.rules: dict[int, Rule] = {}
        self.paths = {id(layer): path for path, layer in walk(model)}
        # What enters each nested model: its inputs have one width, wherever it is used.
        self.entries: dict[int, list[Tensor]] = {}
        self._rule_for = rule_for
        self._count = 0
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._fixed: list[np.ndarray] = []
        inputs = [self.new_tensor(width(x.shape)) for x in model.inputs]
        self.outputs = run(model, inputs, self._call, self._enter)
        for tensor in [*inputs, *self.outputs]:
            self.fix(tensor)
        self.groups = self._connect()
        self._propagate()

    def new_tensor(self, channels: int) -> Tensor:
        """A tensor with channels of its own."""
        self._count += channels
        return Tensor(np.arange(self._count - channels, self._count))

    def tie(self, one: np.ndarray, other: np.ndarray) -> None:
        """Puts channels, given by their atoms, into the same groups."""
        self._ties.append((one, other))

    def fix(self, tensor: Tensor) -> None:
        """Keeps all channels of a tensor."""
        self._fixed.append(tensor.atoms)

    def name(self, operation: Any) -> str:
        """The path of a layer in the model."""
        return self.paths.get(id(operation), operation.name)

    def keep(self) -> np.ndarray:
        """Which groups stay in the smaller model, by number."""
        keep = self.fixed_groups()
        tensors = [tensor for call in self.calls for tensor in call.outputs]
        for tensor in tensors:
            keep[self.groups[tensor.atoms[tensor.needed]]] = True
        # Keras has no layers of width zero.
        for tensor in tensors:
            own = self.groups[tensor.atoms]
            if len(own) and not keep[own].any():
                keep[own[0]] = True
        return keep

    def fixed_groups(self) -> np.ndarray:
        """Which groups must stay whatever they do, by number."""
        fixed = np.zeros(self.groups.max(initial=0) + 1, bool)
        for atoms in self._fixed:
            fixed[self.groups[atoms]] = True
        return fixed

    def _enter(self, nested: keras.Model, inputs: list[Tensor]) -> None:
        first = self.entries.setdefault(id(nested), inputs)
        for one, other in zip(first, inputs, strict=True):
            self.tie(one.atoms, other.atoms)

    def _call(
        self, node: Any, inputs: list[Tensor], known: dict[int, Tensor]
    ) -> list[Tensor]:
        layer = node.operation
        call = Call(
            layer,
            inputs,
            [],
            [tuple(x.shape) for x in node.input_tensors],
            [tuple(x.shape) for x in node.outputs],
        )
        rule = self.rules.get(id(layer))
        if rule is None:
            rule = self.rules[id(layer)] = self._rule_for(layer, call)
        rule.calls.append(call)
        self.calls.append(call)
        rule.link(call, self)
        return call.outputs

    def _connect(self) -> np.ndarray:
        """The number of each atom's group."""
        none = np.zeros(0, int)
        one = np.concatenate([none, *(one for one, _ in self._ties)])
        other = np.concatenate([none, *(other for _, other in self._ties)])
        edges = coo_array(
            (np.ones(len(one), bool), (one, other)), shape=(self._count, self._count)
        )
        return connected_components(edges, directed=False)[1]

    def _propagate(self) -> None:
        """Finds all constants, then all that is needed."""
        for call in self.calls:
            rule = self.rules[id(call.layer)]
            for tensor, value in zip(call.outputs, rule.values(call), strict=True):
                tensor.value = value
        for tensor in self.outputs:
            tensor.needed[:] = True
        # A layer that is used twice needs a pass for what its later use needs of it.
        growing = True
        while growing:
            growing = False
            for call in reversed(self.calls):
                needs = self.rules[id(call.layer)].needs(call)
                for tensor, need in zip(call.inputs, needs, strict=True):
                    growing |= bool((need & ~tensor.needed).any())
                    tensor.needed |= need


def run(
    model: keras.Model,
    inputs: Sequence[Any],
    call: Callable[[Any, list[Any], dict[int, Any]], Sequence[Any]],
    enter: Callable[[keras.Model, list[Any]], None] = lambda nested, inputs: None,
) -> list[Any]:
    """Runs through a model, and through those nested in it, with values of any kind.

    Args:
        model: a Sequential or Functional model.
        inputs: a value for each of its inputs.
        call: `(node, inputs, known) -> outputs` for each use of a layer; `known` has
            the values of tensors by id.
        enter: called with each use of a nested model and what it reads.

    Returns:
        A value for each of the model's outputs.
    """
    graph = graph_of(model)
    known = dict(zip(map(id, graph.inputs), inputs, strict=True))
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            values = [known[id(tensor)] for tensor in node.input_tensors]
            if is_graph(node.operation):
                enter(node.operation, values)
                outputs = run(node.operation, values, call, enter)
            else:
                outputs = list(call(node, values, known))
            known.update(zip(map(id, node.outputs), outputs, strict=True))
    return [known[id(tensor)] for tensor in graph.outputs]


def is_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or Functional model, and no subclass."""
    # Keras has no public name for the class of its Functional models.
    is_keras_own = type(layer).__module__.startswith("keras.src.models.")
    return isinstance(layer, keras.Model) and is_keras_own


def graph_of(model: keras.Model) -> Any:
    """The Functional model behind a Sequential one, or the model itself."""
    return model._functional if isinstance(model, keras.Sequential) else model


def width(shape: Sequence[int | None]) -> int:
    """The number of channels of a tensor of a shape that starts with the batch."""
    return shape[-1] or 0 if len(shape) > 1 else 0
