"""Shortcuts around the branches of a model, to which a layer's outputs are added."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.layers import Add, BatchNormalization

from keras_lottery.keras_bridge.graph import Use, run
from keras_lottery.keras_bridge.internals.graph import has_graph
from keras_lottery.keras_bridge.layers import walk


@dataclass(frozen=True)
class Shortcut:
    """The sum that a layer's outputs are part of, and their scale in it.

    Args:
        add: the `Add` layer.
        branch: the index of the input that is made from the layer's outputs.
        norm: the BatchNormalization between the layer and the sum, or `None`.
        beside: the paths of the layers that end the other branches.
    """

    add: Add
    branch: int
    norm: BatchNormalization | None
    beside: tuple[str, ...]

    @property
    def scale(self) -> np.ndarray | float:
        """The factor of each output (outputs,) between the layer and the sum."""
        if self.norm is None:
            return 1.0
        convert = keras.ops.convert_to_numpy
        variance = np.asarray(convert(self.norm.moving_variance), "float64")
        gamma = convert(self.norm.gamma) if self.norm.scale else 1.0
        return np.asarray(gamma, "float64") / np.sqrt(variance + self.norm.epsilon)

    def others(self, inputs: Any) -> Any:
        """Returns the sum of the tensors that the layer's outputs are added to."""
        rest = [one for index, one in enumerate(inputs) if index != self.branch]
        return sum(rest[1:], rest[0])


@dataclass(eq=False)
class _Made:
    """A tensor, and the layer whose outputs it holds, possibly after a BatchNorm."""

    path: str = ""
    norm: BatchNormalization | None = None
    before: "_Made | None" = None
    reads: int = 0

    @property
    def is_read_once(self) -> bool:
        return self.reads == 1 and (self.before is None or self.before.is_read_once)


def shortcuts(model: keras.Model, sizes: Mapping[str, int]) -> dict[str, Shortcut]:
    """Returns the shortcuts around layers that end a branch, by the layers' paths.

    A layer ends a branch if only an `Add` reads its outputs, directly or behind a
    BatchNormalization. If a sum has several such branches, only the largest one gets a
    shortcut.

    Args:
        model: a model; if it has no graph, none of its shortcuts are known.
        sizes: the number of inputs of each layer that may end a branch, by path.
    """
    if not has_graph(model):
        return {}
    paths = {id(layer): path for path, layer in walk(model)}
    calls = Counter[int]()
    sums: list[tuple[Add, list[_Made]]] = []

    def call(use: Use, values: list[_Made]) -> list[_Made]:
        layer, path = use.layer, paths.get(id(use.layer), "")
        calls[id(layer)] += 1
        for value in values:
            value.reads += 1
        if isinstance(layer, Add) and len(set(use.input_shapes)) == 1:
            sums.append((layer, values))
        elif (
            isinstance(layer, BatchNormalization)
            and values[0].path
            and not values[0].norm
        ):
            last = len(use.input_shapes[0]) - 1
            if layer.axis in (-1, last):
                return [_Made(values[0].path, layer, values[0])]
        elif path in sizes and calls[id(layer)] == 1:
            activation = getattr(layer, "activation", None)
            if activation in (None, keras.activations.linear):
                return [_Made(path)]
        return [_Made() for _ in use.output_shapes]

    for output in run(model, [_Made() for _ in model.inputs], call):
        output.reads += 1
    once = {path for path, layer in walk(model) if calls[id(layer)] == 1}
    found = {}
    for add, values in sums:
        ends = {
            value.path: branch
            for branch, value in enumerate(values)
            if value.path in once and value.is_read_once
        }
        if ends and calls[id(add)] == 1:
            path = max(ends, key=sizes.__getitem__)
            branch = ends.pop(path)
            found[path] = Shortcut(add, branch, values[branch].norm, tuple(ends))
    return found
