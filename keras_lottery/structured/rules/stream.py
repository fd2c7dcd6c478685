"""The rules by which `narrow` follows a residual stream through normalisation.

These rules keep shapes right, and not outputs: a normalisation over fewer channels has
other statistics.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.structured.channels import Call, Channels, Tensor, width
from keras_lottery.structured.rules.attention import Attention
from keras_lottery.structured.rules.einsum import Einsum, is_linear
from keras_lottery.structured.rules.lookup import Lookup
from keras_lottery.structured.rules.per_channel import PerChannel
from keras_lottery.structured.rules.rule import Keep, Rule, Weights
from keras_lottery.structured.rules.table import RuleMaker, rule_for

STREAM: dict[str, RuleMaker] = {}
"""Makers of rules by package and class: `"keras.LayerNormalization"`."""


def stream_rule_for(layer: Any, call: Call) -> Rule:
    """Returns the rule of a layer for `narrow`; by default the one for `compact`."""
    kind = class_of(layer)
    package = kind.__module__.partition(".")[0]
    maker = STREAM.get(f"{package}.{kind.__name__}")
    rule = rule_for(layer, call, maker)
    if type(rule) is not Attention:
        return rule
    if len(call.output_shapes[0]) != len(call.input_shapes[0]):
        return Rule(layer, "its `output_shape` has several axes")
    return AttentionProjections(layer)


def _register(*names: str) -> Callable[[RuleMaker], RuleMaker]:
    def register(maker: RuleMaker) -> RuleMaker:
        STREAM.update(dict.fromkeys(names, maker))
        return maker

    return register


class Normalized(PerChannel):
    """A normalisation over channels, by the statistics of those that stay."""


@_register(
    "keras.LayerNormalization", "keras.RMSNormalization", "keras.UnitNormalization"
)
def _normalization(layer: Any, call: Call) -> Rule:
    axes = len(call.input_shapes[0])
    if [axis % axes for axis in np.atleast_1d(layer.axis)] != [axes - 1]:
        return Rule(layer, f"it has axis={layer.axis}")
    return Normalized(layer)


@_register("keras_hub.PositionEmbedding")
def _position_embedding(layer: Any, call: Call) -> Rule:
    """Returns the rule of keras-hub's layer, as wide as what it reads."""
    return PerChannel(layer)


class Tied(Lookup):
    """An embedding that is also used in reverse, to compute logits from channels."""

    def link(self, call: Call, channels: Channels) -> None:
        super().link(call, channels)
        if given_to(call, call.inputs).get("reverse", False):
            channels.tie(self.table.atoms, call.inputs[0].atoms)
            call.outputs[:] = [channels.new_tensor(self.layer.input_dim)]
            channels.fix(call.outputs[0])

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        if name == "reverse_embeddings":
            return array[keep(self.table)]
        return super().cut(name, array, keep)


@_register("keras.ReversibleEmbedding", "keras_hub.ReversibleEmbedding")
def _reversible_embedding(layer: Any, call: Call) -> Rule:
    return Tied(layer)


class AttentionProjections(Attention):
    """Keeps all heads; what the projections read and make may be removed."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.alive[:] = True
        # Only MultiHeadAttention has such an argument.
        self.own_width = layer.get_config().get("output_shape") is not None

    def link(self, call: Call, channels: Channels) -> None:
        read = self.read(call, call.inputs)
        if call is not self.calls[0]:
            first = self.calls[0]
            for part, tensor in self.read(first, first.inputs).items():
                channels.tie(tensor.atoms, read[part].atoms)
            made = Tensor(first.outputs[0].atoms)
        elif self.own_width:
            made = channels.new_tensor(width(call.output_shapes[0]))
        else:
            made = Tensor(read["query"].atoms)
        scores = [channels.new_tensor(width(s)) for s in call.output_shapes[1:]]
        call.outputs.extend([made, *scores])
        projected = {id(tensor) for tensor in read.values()}
        for tensor in [*call.inputs, *scores]:
            if id(tensor) not in projected:
                channels.fix(tensor)

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        config: dict[str, Any] = {}
        if self.own_width:
            config["output_shape"] = (int(keep(self.calls[0].outputs[0]).sum()),)
        return config, {n: self.cut(n, array, keep) for n, array in self.arrays.items()}

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        part, _, kind = name.partition("/")
        call = self.calls[0]
        if part == "attention_output":
            return array[..., keep(call.outputs[0])]
        read = self.read(call, call.inputs)
        return array[keep(read[part])] if part in read and kind == "kernel" else array

    def read(self, call: Call, tensors: Sequence[Any]) -> dict[str, Any]:
        """Returns which of a call's input tensors each projection reads."""
        given = given_to(call, tensors)
        # Self-attention with rotary positions reads one tensor, its first argument.
        query = next(iter(given.values()))
        value = given.get("value", query)
        key = value if given.get("key") is None else given["key"]
        return {"query": query, "gate": query, "key": key, "value": value}


@_register("keras.EinsumDense")
def _einsum_dense(layer: Any, call: Call) -> Rule:
    # Without constants, the axes of heads do no harm.
    if not is_linear(layer):
        return Rule(layer, f"it is no product along the channels: {layer.equation}")
    return Einsum(layer)


def given_to(call: Call, tensors: Sequence[Any]) -> dict[str, Any]:
    """Returns the arguments of a use of a layer, by name.

    Args:
        call: the use.
        tensors: what stands for the symbolic tensors that it reads, in their order.
    """
    given = call.use.args, call.use.kwargs
    symbols = [x for x in keras.tree.flatten(given) if isinstance(x, keras.KerasTensor)]
    known = dict(zip(map(id, symbols), tensors, strict=True))
    bound = inspect.signature(call.layer.call).bind(*call.use.args, **call.use.kwargs)
    return {name: known.get(id(x), x) for name, x in bound.arguments.items()}
