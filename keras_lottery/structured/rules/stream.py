"""The rules by which `narrow` follows a residual stream through normalisation.

These rules keep shapes right, and not outputs: a normalisation over fewer channels has
other statistics.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.structured.activations import is_elementwise
from keras_lottery.structured.channels import Call, Channels, Tensor, width
from keras_lottery.structured.rules.attention import Attention
from keras_lottery.structured.rules.lookup import Lookup
from keras_lottery.structured.rules.per_channel import PerChannel
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, weights_of
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
        given = _given(call)
        super().link(call, channels)
        if given.get("reverse", False):
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
        read = self._read(call)
        if call is not self.calls[0]:
            for part, tensor in self._read(self.calls[0]).items():
                channels.tie(tensor.atoms, read[part].atoms)
            made = Tensor(self.calls[0].outputs[0].atoms)
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
        read = self._read(call)
        return array[keep(read[part])] if part in read and kind == "kernel" else array

    def _read(self, call: Call) -> dict[str, Tensor]:
        """Returns the tensor that each projection reads."""
        given = _given(call)
        tensors = _tensors(call)
        # Self-attention with rotary positions reads one tensor, its first argument.
        query = tensors[id(next(iter(given.values())))]
        value = tensors[id(given["value"])] if "value" in given else query
        key = value if given.get("key") is None else tensors[id(given["key"])]
        return {"query": query, "gate": query, "key": key, "value": value}


class Projection(Rule):
    """An EinsumDense that reads the last axis, and makes the last one."""

    def link(self, call: Call, channels: Channels) -> None:
        first = self.calls[0]
        if call is first:
            made = channels.new_tensor(width(call.output_shapes[0]))
        else:
            made = Tensor(first.outputs[0].atoms)
        call.outputs.append(made)
        if not is_elementwise(self.layer.activation):
            channels.fix(made)
        self.tie_calls(call, channels)

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        shape = self.layer.get_config()["output_shape"]
        made = int(keep(self.calls[0].outputs[0]).sum())
        own = weights_of(self.layer)
        weights = {name: self.cut(name, array, keep) for name, array in own.items()}
        return {"output_shape": (*shape[:-1], made)}, weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        read, kernel, made = _labels(self.layer)
        kept_out = keep(self.calls[0].outputs[0])
        if name == "bias":
            # It has the last axes of the output, of length one where it is broadcast.
            return array if made not in self.layer.bias_axes else array[..., kept_out]
        kept_in = keep(self.calls[0].inputs[0])
        array = np.compress(kept_in, array, kernel.index(read))
        return np.compress(kept_out, array, kernel.index(made))


@_register("keras.EinsumDense")
def _einsum_dense(layer: Any, call: Call) -> Rule:
    inputs, kernel, output = _equation(layer)
    read, made = inputs[-1], output[-1]
    if read not in kernel or read in output or made not in kernel or made in inputs:
        return Rule(layer, f"it is no product along the channels: {layer.equation}")
    return Projection(layer)


def _equation(layer: Any) -> list[str]:
    """Returns the labels of an EinsumDense's input, kernel and output."""
    both, output = layer.equation.replace(" ", "").split("->")
    return [*both.split(","), output]


def _labels(layer: Any) -> tuple[str, str, str]:
    """Returns the labels of the channels read, of the kernel, and of those made."""
    inputs, kernel, output = _equation(layer)
    return inputs[-1], kernel, output[-1]


def _given(call: Call) -> dict[str, Any]:
    """Returns the arguments of a use of a layer, by name."""
    bound = inspect.signature(call.layer.call).bind(*call.use.args, **call.use.kwargs)
    return bound.arguments


def _tensors(call: Call) -> dict[int, Tensor]:
    """Returns what is known of each symbolic argument of a use, by its `id`."""
    symbols = keras.tree.flatten((call.use.args, call.use.kwargs))
    symbols = [symbol for symbol in symbols if isinstance(symbol, keras.KerasTensor)]
    return dict(zip(map(id, symbols), call.inputs, strict=True))
