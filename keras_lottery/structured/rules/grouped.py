"""The rule of grouped convolutions; in depthwise ones a group is one channel."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_lottery.structured.activations import apply
from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, weights_of


class Grouped(Rule):
    """Each group of input channels makes its own group of output channels.

    A group is removed as a whole, with all its input and output channels.

    Args:
        layer: the layer.
        gains: array (groups, inputs, outputs): the amount that an input that is 1
            everywhere adds to an output, away from padding.
        reads: boolean array (groups, inputs, outputs): whether the output depends on
            the input.
        axes: the axes (inputs, outputs) of each weight, `None` for an axis that it
            lacks.
        padded: why constants other than zero do not stay constant; empty if they do.
        config: the config's changes for a number of groups.
    """

    def __init__(
        self,
        layer: Any,
        gains: np.ndarray,
        reads: np.ndarray,
        axes: Mapping[str, tuple[int | None, int | None]],
        padded: str,
        config: Callable[[int], dict[str, Any]] = lambda groups: {},
    ) -> None:
        super().__init__(layer, padded or "other channels of its group are live")
        self.padded = padded
        self.gains = gains
        self.reads = reads
        self.axes = axes
        self.config = config
        groups, _, outputs = gains.shape
        self.bias = weights_of(layer).get("bias", np.zeros(groups * outputs))

    def link(self, call: Call, channels: Channels) -> None:
        _, inputs, outputs = self.gains.shape
        atoms = call.inputs[0].atoms
        first = atoms[::inputs]
        if inputs > 1:
            channels.tie(np.repeat(first, inputs), atoms)
        call.outputs.append(Tensor(np.repeat(first, outputs)))
        self.tie_calls(call, channels)

    def values(self, call: Call) -> list[np.ndarray]:
        value = self._inputs(call.inputs[0].value)
        known = value == 0 if self.padded else ~np.isnan(value)
        live = (~known[..., None] & self.reads).any(axis=1).ravel()
        gains = self.gains.astype("float64")
        total = np.einsum("gi,gio->go", np.where(known, value, 0), gains)
        made = apply(self.layer.activation, total.ravel() + self.bias)
        return [np.where(live, np.nan, made)]

    def needs(self, call: Call) -> list[np.ndarray]:
        return [self._readers(call.outputs[0].needed)]

    def stuck(self, call: Call) -> list[np.ndarray]:
        output = call.outputs[0]
        lost = self._readers(output.needed & ~output.constant)
        return [lost & call.inputs[0].constant]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        outputs = self.gains.shape[2]
        own = weights_of(self.layer)
        weights = {name: self.cut(name, array, keep) for name, array in own.items()}
        kept = keep(self.calls[0].outputs[0])[::outputs]
        return self.config(int(kept.sum())), weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        call = self.calls[0]
        kept = keep(call.inputs[0]), keep(call.outputs[0])
        for own, axis in zip(kept, {**self.axes, "bias": (None, 0)}[name], strict=True):
            if axis is not None:
                array = np.compress(own, array, axis)
        return array

    def _inputs(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(self.gains.shape[:2])

    def _readers(self, outputs: np.ndarray) -> np.ndarray:
        """Marks the inputs that any of these outputs reads."""
        groups, _, count = self.gains.shape
        wanted = outputs.reshape(groups, 1, count)
        return (self.reads & wanted).any(axis=2).ravel()
