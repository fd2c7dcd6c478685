"""The rules for operators and functions of `keras.ops` in a Functional model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lottery.structured.channels import Call
from keras_lottery.structured.rules.for_layers import MOVED, OVER_CHANNELS
from keras_lottery.structured.rules.merge import merged
from keras_lottery.structured.rules.parts import Concatenation, Parts
from keras_lottery.structured.rules.per_channel import Computed
from keras_lottery.structured.rules.regrouping import Regrouping, regrouped
from keras_lottery.structured.rules.rule import Keep, Rule, array_of
from keras_lottery.structured.rules.table import register_operations


@register_operations(
    *("Absolute", "Add", "Cast", "Ceil", "Celu", "Clip", "Cos", "Divide", "Elu"),
    *("Equal", "Erf", "Exp", "Expm1", "Floor", "FloorDivide", "Gelu", "Greater"),
    *("GreaterEqual", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu"),
    *("Less", "LessEqual", "Log", "Log1p", "LogSigmoid", "LogicalAnd", "LogicalNot"),
    *("LogicalOr", "Maximum", "Minimum", "Mod", "Multiply", "NanToNum", "Negative"),
    *("NotEqual", "Power", "Reciprocal", "Relu", "Relu6", "Round", "Rsqrt", "Selu"),
    *("Sigmoid", "Sign", "Silu", "Sin", "SoftShrink", "Softplus", "Softsign"),
    *("SparsePlus", "SparseSigmoid", "Sqrt", "Square", "Squareplus", "Subtract"),
    *("Tanh", "TanhShrink", "Threshold", "TrueDivide", "Where"),
)
def _at_points(operation: Any, call: Call) -> Rule:
    """Returns the rule of elementwise functions of tensors and constants."""
    if any(isinstance(argument, list | tuple) for argument in call.use.args):
        return Rule(operation, "it is given a list of numbers: make it an array")
    if len(call.inputs) > 1:
        return merged(operation, call)
    return _if_same_width(Computed(operation, at_points=True), call)


@register_operations(
    *("AdaptiveAveragePool", "AdaptiveMaxPool", "AveragePool", "MaxPool", "Resize")
)
def _over_space(operation: Any, call: Call) -> Rule:
    return _if_same_width(Computed(operation), call)


@register_operations(
    *("All", "Amax", "Amin", "Any", "Cumprod", "Cumsum", "Flip", "LogSoftmax"),
    *("Logsumexp", "Max", "Mean", "Median", "Min", "Prod", "Repeat", "Roll"),
    *("Softmax", "Std", "Sum", "Var"),
)
def _along_an_axis(operation: Any, call: Call) -> Rule:
    if _is_channels(operation.axis, len(call.input_shapes[0])):
        return Rule(operation, OVER_CHANNELS)
    return Computed(operation)


@register_operations("ExpandDims", "Squeeze")
def _axes_of_one(operation: Any, call: Call) -> Rule:
    axes = max(len(call.input_shapes[0]), len(call.output_shapes[0]))
    if _is_channels(operation.axis, axes):
        return Rule(operation, MOVED)
    return Computed(operation)


@register_operations("Moveaxis", "Swapaxes", "Transpose")
def _moved(operation: Any, call: Call) -> Rule:
    axes = len(call.input_shapes[0])
    numbers = np.arange(axes).reshape([1] * (axes - 1) + [axes])
    if operation.call(numbers).shape[-1] != axes:
        return Rule(operation, MOVED)
    return Computed(operation)


@register_operations("Pad")
def _pad(operation: Any, call: Call) -> Rule:
    axes = len(call.input_shapes[0])
    if np.broadcast_to(operation.pad_width, (axes, 2))[-1].any():
        return Rule(operation, "it pads the channels")
    return Computed(operation)


@register_operations("Reshape")
def _reshape(operation: Any, call: Call) -> Rule:
    def config(kept: np.ndarray) -> dict[str, Any]:
        last = operation.newshape[-1]
        width = last if last == -1 else int(kept.sum())
        return {"newshape": (*operation.newshape[:-1], width)}

    if call.input_shapes[0][-1] == call.output_shapes[0][-1]:
        return Computed(operation, config)
    return regrouped(Regrouping(operation, config), call)


@register_operations("Concatenate")
def _concatenate(operation: Any, call: Call) -> Rule:
    if _is_channels(operation.axis, len(call.input_shapes[0])):
        return Concatenation(operation)
    return merged(operation, call)


@register_operations("Stack")
def _stack(operation: Any, call: Call) -> Rule:
    if _is_channels(operation.axis, len(call.output_shapes[0])):
        return Rule(operation, MOVED)
    return merged(operation, call)


@register_operations("Split")
def _split(operation: Any, call: Call) -> Rule:
    if not _is_channels(operation.axis, len(call.input_shapes[0])):
        return Rule(operation, "it splits another axis than that of the channels")
    widths = [shape[-1] for shape in call.output_shapes]
    numbers = np.arange(sum(widths))

    def config(kept: list[np.ndarray]) -> dict[str, Any]:
        ends = np.cumsum([part.sum() for part in kept])[:-1]
        return {"indices_or_sections": ends.tolist()}

    return Parts(operation, np.split(numbers, np.cumsum(widths)[:-1]), config)


class _TakenFromSpace(Computed):
    """The rule of `take` along another axis than the channels'."""

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: Keep
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs


@register_operations("Take")
def _take(operation: Any, call: Call) -> Rule:
    if not _is_channels(operation.axis, len(call.input_shapes[0])):
        return _TakenFromSpace(operation)
    numbers = array_of(call.use.args[1])
    if numbers.ndim != 1:
        return Rule(operation, "it makes other axes of the channels")
    new = lambda kept: (np.cumsum(kept) - 1)[numbers[kept[numbers]]]  # noqa: E731
    return Parts(operation, [numbers], argument=new)


@register_operations("TakeAlongAxis")
def _take_along_axis(operation: Any, call: Call) -> Rule:
    if _is_channels(operation.axis, len(call.input_shapes[0])):
        return Rule(operation, OVER_CHANNELS)
    return merged(operation, call)


@register_operations("GetItem")
def _get_item(operation: Any, call: Call) -> Rule:
    key = call.use.args[1]
    key = list(key) if isinstance(key, tuple) else [key]
    axes = len(call.input_shapes[0])
    if ... in key:
        at, taken = key.index(...), sum(part is not None for part in key) - 1
        key[at : at + 1] = [slice(None)] * (axes - taken)
    key += [slice(None)] * (axes - sum(part is not None for part in key))
    last = key[-1]
    if not all(part is None or isinstance(part, int | slice) for part in key):
        return Rule(operation, "it is indexed by arrays")
    if not isinstance(last, slice):
        return Rule(operation, MOVED)
    if last == slice(None):
        return Computed(operation)
    numbers = np.arange(call.input_shapes[0][-1])[last]
    if last.step not in (None, 1):
        return Rule(operation, f"it takes channels in steps of {last.step}")
    start, stop = (int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else (0, 0)

    def argument(kept: np.ndarray) -> tuple[Any, ...]:
        own = slice(int(kept[:start].sum()), int(kept[:stop].sum()))
        return (*key[:-1], own)

    if any(part != slice(None) for part in key[:-1]):
        return Rule(operation, "it cuts space and channels at once: do it in two steps")
    return Parts(operation, [numbers], argument=argument)


def _is_channels(axis: int | Sequence[int] | None, axes: int) -> bool:
    """Whether an axis, or one of several, is the last one; `None` means all of them."""
    if axis is None:
        return True
    return any(one % axes == axes - 1 for one in np.atleast_1d(axis))


def _if_same_width(rule: Computed, call: Call) -> Rule:
    if call.input_shapes[0][-1] == call.output_shapes[0][-1]:
        return rule
    return Rule(rule.layer, "it makes another number of channels")
