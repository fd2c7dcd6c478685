"""The rule of normalisation over groups of channels."""

from typing import Any

import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, weights_of


class GroupNormalized(Rule):
    """Channels are normalised by statistics of their group, and removed with it.

    Args:
        layer: a `GroupNormalization`.
        channels: the number of channels that it normalises.
    """

    def __init__(self, layer: Any, channels: int) -> None:
        super().__init__(layer, "the others of its group are live")
        self.size = channels // layer.groups
        own = weights_of(layer)
        self.gamma = own.get("gamma", np.ones(channels))
        self.beta = own.get("beta", np.zeros(channels))

    def link(self, call: Call, channels: Channels) -> None:
        atoms = call.inputs[0].atoms
        channels.tie(np.repeat(atoms[:: self.size], self.size), atoms)
        call.outputs.append(Tensor(atoms))
        self.tie_calls(call, channels)

    def values(self, call: Call) -> list[np.ndarray]:
        value = call.inputs[0].value.reshape(-1, self.size)
        mean, variance = (f(axis=1, keepdims=True) for f in (value.mean, value.var))
        normal = (value - mean) / np.sqrt(variance + self.layer.epsilon)
        return [np.where(self.gamma == 0, 0, normal.ravel() * self.gamma) + self.beta]

    def needs(self, call: Call) -> list[np.ndarray]:
        return [self._groups(call.outputs[0].needed & (self.gamma != 0))]

    def stuck(self, call: Call) -> list[np.ndarray]:
        output = call.outputs[0]
        lost = self._groups(output.needed & ~output.constant)
        return [lost & call.inputs[0].constant]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        own = weights_of(self.layer)
        weights = {name: self.cut(name, array, keep) for name, array in own.items()}
        kept = keep(self.calls[0].inputs[0])
        return {"groups": int(kept.sum()) // self.size}, weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        return array[keep(self.calls[0].inputs[0])]

    def _groups(self, channels: np.ndarray) -> np.ndarray:
        """Marks all channels of the groups that contain a marked channel."""
        return np.repeat(channels.reshape(-1, self.size).any(axis=1), self.size)
