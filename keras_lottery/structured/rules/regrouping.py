"""The rule of layers that only change a tensor's shape."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, common


class Regrouping(Rule):
    """The same entries get another shape, as in Flatten and Reshape.

    Args:
        layer: the layer.
        config: the config's changes, given which channels of the output stay.
    """

    def __init__(
        self, layer: Any, config: Callable[[np.ndarray], dict[str, Any]] | None = None
    ) -> None:
        super().__init__(layer)
        self.config = config
        self.ties_calls = config is not None

    def link(self, call: Call, channels: Channels) -> None:
        atoms = self._columns(call, call.inputs[0].atoms)
        call.outputs.append(Tensor(atoms[0]))
        channels.tie(np.broadcast_to(atoms[0], atoms.shape).ravel(), atoms.ravel())
        self.tie_calls(call, channels)

    def values(self, call: Call) -> list[np.ndarray]:
        return [common(self._columns(call, call.inputs[0].value))]

    def needs(self, call: Call) -> list[np.ndarray]:
        needed = np.broadcast_to(call.outputs[0].needed, call.output_shapes[0][1:])
        return [np.any(needed.reshape(-1, call.inputs[0].width), axis=0)]

    def stuck(self, call: Call) -> list[np.ndarray]:
        constant = self._columns(call, call.inputs[0].constant)
        lost = constant & call.outputs[0].needed & ~call.outputs[0].constant
        return [np.any(lost.reshape(-1, call.inputs[0].width), axis=0)]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        kept = keep(self.calls[0].outputs[0])
        return self.config(kept) if self.config else {}, {}

    def _columns(self, call: Call, array: np.ndarray) -> np.ndarray:
        """Returns each output channel's inputs by position: (positions, channels)."""
        whole = np.broadcast_to(array, call.input_shapes[0][1:])
        return whole.reshape(-1, call.output_shapes[0][-1] or 0)


def regrouped(rule: Regrouping, call: Call) -> Rule:
    """Returns the rule if all sizes are known and examples are not mixed."""
    before, after = call.input_shapes[0][1:], call.output_shapes[0][1:]
    if not all([*before, *after]):
        return Rule(rule.layer, "its shapes are not known")
    if math.prod(before) != math.prod(after):
        return Rule(rule.layer, "it makes other examples of the batch")
    return rule
