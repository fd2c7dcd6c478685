"""Attention: all channels stay, and heads that do nothing go."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers

from keras_lottery.keras_bridge.layers import named_variables
from keras_lottery.structured.channels import Call, Channels
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, array_of

AXES = {"query": 1, "key": 1, "value": 1, "gate": 1, "attention_output": 0}
"""The axis of heads in each kernel."""


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer that can be removed without the others.

    Where several heads of queries share a head of keys and values, they are one.

    Args:
        count: how many there are.
        sharing: how many heads of queries each has.
        config: the names of the numbers of heads of queries, and of keys and values,
            in the layer's config.
    """

    count: int
    sharing: int
    config: tuple[str, ...]

    @classmethod
    def of(cls, layer: Any) -> "Heads | None":
        """Those of a layer, or `None` if it has none."""
        if not isinstance(layer, ATTENTION):
            return None
        if isinstance(layer, layers.MultiHeadAttention):
            return cls(layer.num_heads, 1, ("num_heads",))
        names = ("num_query_heads", "num_key_value_heads")
        queries, keys = (getattr(layer, name) for name in names)
        return cls(keys, queries // keys, names)

    def along(self, part: str) -> np.ndarray:
        """The number of the head of each slice of a part's kernel, along its axis."""
        times = 1 if part in ("key", "value") else self.sharing
        return np.repeat(np.arange(self.count), times)


ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)


class Attention(Rule):
    """Keeps all channels, and removes heads whose values or outputs have no weights.

    Where the model takes the attention's scores as well, it has those of all heads.
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
        # There is no attention without heads.
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
