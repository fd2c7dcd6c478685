"""The tables of the rules for layers and for functions of `keras.ops`."""

from collections.abc import Callable
from typing import Any

from keras_lottery.keras_bridge.internals.graph import function_name
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.kinds import ORDINARY_LAYERS
from keras_lottery.structured.channels import Call
from keras_lottery.structured.rules.attention import Attention
from keras_lottery.structured.rules.lookup import Lookup
from keras_lottery.structured.rules.masked_mean import MaskedMean
from keras_lottery.structured.rules.merge import Merge
from keras_lottery.structured.rules.parts import Concatenation
from keras_lottery.structured.rules.rule import Rule

SEVERAL = Merge | Concatenation | Attention | MaskedMean
"""The rules of layers that may read several tensors."""

RuleMaker = Callable[[Any, Call], Rule]

RULES: dict[type, RuleMaker] = {}
"""Makers of rules by the class of the layer."""

OPERATIONS: dict[str, RuleMaker] = {}
"""Makers of rules by the name of Keras's class for a function of `keras.ops`."""


def register_rule(*classes: type) -> Callable[[RuleMaker], RuleMaker]:
    """Tells `compact` and filter pruning how layers of a class treat channels.

    The decorated function receives a layer and a call of it and returns a `Rule`, such
    as `PerChannel(layer)` for a layer that treats each channel by itself. Without a
    rule, or if rules for several calls differ, all input and output channels of a layer
    stay. A rule does not apply to subclasses; each needs its own.

    Example:

    >>> import keras
    >>> from keras_lottery.structured import PerChannel, register_rule
    >>> class Halve(keras.layers.Layer):
    ...     def call(self, x):
    ...         return x / 2
    >>> @register_rule(Halve)
    ... def halve(layer, call):
    ...     return PerChannel(layer, lambda value: value / 2)
    """

    def register(maker: RuleMaker) -> RuleMaker:
        RULES.update(dict.fromkeys(classes, maker))
        return maker

    return register


def register_operations(*names: str) -> Callable[[RuleMaker], RuleMaker]:
    """Registers a maker of rules for functions of `keras.ops`, by their class names."""

    def register(maker: RuleMaker) -> RuleMaker:
        OPERATIONS.update(dict.fromkeys(names, maker))
        return maker

    return register


def rule_for(layer: Any, call: Call, maker: RuleMaker | None = None) -> Rule:
    """Returns the rule of a layer by its class; without one, all its channels stay.

    Args:
        layer: the layer, or the function of `keras.ops`.
        call: one of its uses.
        maker: makes the rule; by default the one that is registered.
    """
    kind = ORDINARY_LAYERS.get(class_of(layer), class_of(layer))
    maker = maker or RULES.get(kind) or OPERATIONS.get(function_name(layer) or "")
    if maker is None:
        return Rule(layer, f"no rule for {kind.__name__}")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return Rule(layer, "its data_format is not 'channels_last'")
    if getattr(layer, "quantization_mode", None) or getattr(
        layer, "lora_enabled", False
    ):
        return Rule(layer, "it is quantized or has LoRA weights")
    if not call.inputs:
        return Rule(layer, "it reads no tensor")
    rule = maker(layer, call)
    if len(call.inputs) != 1 and not isinstance(rule, SEVERAL):
        return Rule(layer, rule.reason or f"it reads {len(call.inputs)} tensors")
    known = all(tensor.width for tensor in call.inputs)
    # Attention may read a mask, whose last axis is the sequence length.
    if not known and not isinstance(rule, Lookup | Attention):
        return Rule(layer, "the number of its channels is not known")
    return rule
