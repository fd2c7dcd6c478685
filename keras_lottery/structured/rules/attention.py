"""The rule of attention: all channels stay, and heads without effect are removed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers

from keras_lottery.keras_bridge.layers import named_variables
from keras_lottery.structured.channels import Call, Channels
from keras_lottery.structured.rotary import RotaryAttention
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, array_of

AXES = {"query": 1, "key": 1, "value": 1, "gate": 1, "attention_output": 0}
"""The axis of the heads in each kernel."""


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer, each of which can be removed separately.

    If several heads of queries share a head of keys and values, they count as one.

    Args:
        count: the number of heads.
        sharing: the number of heads of queries that each of them has.
        config: the names in the layer's config of the number of heads of queries, and
            of the number of heads of keys and values.
    """

    count: int
    sharing: int
    config: tuple[str, ...]

    @classmethod
    def of(cls, layer: Any) -> "Heads | None":
        """Returns the heads of a layer, or `None` if it has none."""
        if not isinstance(layer, ATTENTION):
            return None
        if isinstance(layer, layers.MultiHeadAttention):
            return cls(layer.num_heads, 1, ("num_heads",))
        names = ("num_query_heads", "num_key_value_heads")
        queries, keys = (getattr(layer, name) for name in names)
        return cls(keys, queries // keys, names)

    def along(self, part: str) -> np.ndarray:
        """Returns the index of the head of each slice of a kernel along its axis."""
        times = 1 if part in ("key", "value") else self.sharing
        return np.repeat(np.arange(self.count), times)


ATTENTION = (
    layers.MultiHeadAttention,
    layers.GroupQueryAttention,
    RotaryAttention,
)


class Attention(Rule):
    """Keeps all channels, and removes heads whose values or outputs have no weights.

    If the model also uses the attention's scores, all heads stay.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, "it mixes channels")
        self.heads = Heads.of(layer)
        self.arrays = {n: array_of(v) for n, v in named_variables(layer).items()}
        self.alive = self._alive()

    def link(self, call: Call, channels: Channels) -> None:
        super().link(call, channels)
        if len(call.outputs) > 1:
            self.alive[:] = True

    def _alive(self) -> np.ndarray:
        assert self.heads is not None
        makes = np.zeros(self.heads.count, bool)
        for name in ("value/kernel", "value/bias"):
            if name in self.arrays:
                axis = self._axis(name)
                rows = np.moveaxis(self.arrays[name], axis, 0)
                makes |= rows.reshape(len(rows), -1).any(axis=1)
        output = self.arrays["attention_output/kernel"]
        rows = output.reshape(self.heads.count, -1)
        alive = makes & rows.any(axis=1)
        # An attention layer needs at least one head.
        alive[0] |= not alive.any()
        return alive

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        assert self.heads is not None
        count = int(self.alive.sum())
        sizes = (count * self.heads.sharing, count)
        config = dict(zip(self.heads.config, sizes, strict=False))
        weights = {}
        for name, array in self.arrays.items():
            part = name.partition("/")[0]
            if part in AXES and name != "attention_output/bias":
                kept = self.alive[self.heads.along(part)]
                array = np.compress(kept, array, self._axis(name))
            weights[name] = array
        return config, weights

    def _axis(self, name: str) -> int:
        part, _, kind = name.partition("/")
        return AXES[part] if kind == "kernel" else 0
