"""Which rule each layer of Keras follows."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_lottery.keras_bridge.internals.graph import function_name
from keras_lottery.structured.activations import apply, is_elementwise
from keras_lottery.structured.channels import Call
from keras_lottery.structured.rules import (
    Concatenation,
    Depthwise,
    Linear,
    Lookup,
    Merge,
    PerChannel,
    Product,
    Regrouping,
    Rule,
    common,
)

RuleMaker = Callable[[Any, Call], Rule]

NO_RULE = "no rule for {}"
RULES: dict[type, RuleMaker] = {layers.Embedding: lambda layer, call: Lookup(layer)}


def register_rule(*classes: type) -> Callable[[RuleMaker], RuleMaker]:
    """Teaches `compact` and pruning of filters how layers of a class treat channels.

    The decorated function is given a layer and its first call and returns its `Rule`,
    such as `PerChannel(layer)` for a layer that treats each channel by itself. Without
    a rule, the channels that a layer reads and makes stay. Subclasses have rules of
    their own.

    Example:

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


def rule_for(layer: Any, call: Call) -> Rule:
    """The rule of a layer, by its class; without one, all its channels stay."""
    kind = type(layer)
    maker = RULES.get(kind) or OPERATIONS.get(function_name(layer))
    if maker is None:
        return Rule(layer, NO_RULE.format(kind.__name__))
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return Rule(layer, "its data_format is not 'channels_last'")
    if getattr(layer, "quantization_mode", None) or getattr(
        layer, "lora_enabled", False
    ):
        return Rule(layer, "it is quantized or has LoRA weights")
    rule = maker(layer, call)
    if len(call.inputs) != 1 and not isinstance(rule, Merge | Concatenation):
        return Rule(layer, f"it reads {len(call.inputs)} tensors")
    if any(not tensor.width for tensor in call.inputs) and kind != layers.Embedding:
        return Rule(layer, "the number of its channels is not known")
    return rule


@register_rule(layers.Dense)
def _dense(layer: Any, call: Call) -> Rule:
    kernel = _array(layer.kernel)
    return Linear(layer, kernel, kernel != 0, "units", {"kernel": (0, 1)})


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def _conv(layer: Any, call: Call) -> Rule:
    if layer.groups != 1:
        return Rule(layer, f"it has groups={layer.groups}")
    kernel = _array(layer.kernel)
    positions = tuple(range(kernel.ndim - 2))
    return Linear(
        layer,
        kernel.sum(positions, dtype="float64"),
        (kernel != 0).any(positions),
        "filters",
        {"kernel": (-2, -1)},
        _padding(layer),
    )


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def _conv_transpose(layer: Any, call: Call) -> Rule:
    kernel = np.swapaxes(_array(layer.kernel), -1, -2)
    positions = tuple(range(kernel.ndim - 2))
    return Linear(
        layer,
        kernel.sum(positions, dtype="float64"),
        (kernel != 0).any(positions),
        "filters",
        {"kernel": (-1, -2)},
        "a transposed convolution adds them up unevenly",
    )


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def _separable(layer: Any, call: Call) -> Rule:
    depthwise = _array(layer.depthwise_kernel)
    pointwise = _array(layer.pointwise_kernel)[(0,) * (depthwise.ndim - 2)]
    positions = tuple(range(depthwise.ndim - 2))
    # (inputs, multiplier) and (inputs, multiplier, outputs)
    gains = depthwise.sum(positions, dtype="float64")
    pointwise = pointwise.reshape(*gains.shape, -1)
    reads = (depthwise != 0).any(positions)
    return Linear(
        layer,
        np.einsum("im,imo->io", gains, pointwise),
        np.einsum("im,imo->io", reads, pointwise != 0),
        "filters",
        {"depthwise_kernel": (-2, None), "pointwise_kernel": (-2, -1)},
        _padding(layer),
    )


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _depthwise(layer: Any, call: Call) -> Rule:
    if not is_elementwise(layer.activation):
        return Rule(layer, "its activation may mix channels")
    return Depthwise(layer, _padding(layer))


@register_rule(layers.BatchNormalization)
def _batch_normalization(layer: Any, call: Call) -> Rule:
    if not _is_last(layer.axis, call):
        return Rule(layer, f"it has axis={layer.axis}")
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    gamma = _array(layer.gamma) if layer.scale else np.ones(len(mean))
    beta = _array(layer.beta) if layer.center else np.zeros(len(mean))
    scale = gamma / np.sqrt(variance.astype("float64") + layer.epsilon)
    return PerChannel(layer, lambda v: (v - mean) * scale + beta, ignores=gamma == 0)


@register_rule(layers.PReLU)
def _prelu(layer: Any, call: Call) -> Rule:
    alpha = _array(layer.alpha).reshape(-1, layer.alpha.shape[-1])
    slope = common(alpha)
    return PerChannel(
        layer,
        lambda value: np.where(value < 0, slope * value, value),
        reason="its slope differs between positions",
    )


@register_rule(layers.ReLU, layers.LeakyReLU, layers.ELU)
def _elementwise(layer: Any, call: Call) -> Rule:
    return PerChannel(layer, lambda value: apply(layer, value))


@register_rule(layers.Activation)
def _activation(layer: Any, call: Call) -> Rule:
    if not is_elementwise(layer.activation):
        return Rule(layer, "its activation may mix channels")
    return PerChannel(layer, lambda value: apply(layer, value))


@register_rule(
    layers.ActivityRegularization,
    layers.AdaptiveAveragePooling1D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveAveragePooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
    layers.AlphaDropout,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.Identity,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.RepeatVector,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
)
def _unchanged(layer: Any, call: Call) -> Rule:
    return PerChannel(layer)


@register_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def _zero_padding(layer: Any, call: Call) -> Rule:
    return PerChannel(
        layer,
        lambda value: np.where(value == 0, value, np.nan),
        reason="it pads with zeros",
    )


@register_rule(layers.Permute)
def _permute(layer: Any, call: Call) -> Rule:
    if layer.dims[-1] != len(layer.dims):
        return Rule(layer, "it moves the channels to another axis")
    return PerChannel(layer)


@register_rule(layers.Flatten)
def _flatten(layer: Any, call: Call) -> Rule:
    return _regrouped(Regrouping(layer), call)


@register_rule(layers.Reshape)
def _reshape(layer: Any, call: Call) -> Rule:
    def config(channels: int) -> dict[str, Any]:
        return {"target_shape": (*layer.target_shape[:-1], channels)}

    if call.input_shapes[0][-1] == call.output_shapes[0][-1]:
        return PerChannel(layer, config=config)
    return _regrouped(Regrouping(layer, config), call)


@register_rule(layers.Concatenate)
def _concatenate(layer: Any, call: Call) -> Rule:
    if _is_last(layer.axis, call):
        return Concatenation(layer)
    return _merged(Merge(layer, common), call)


@register_rule(layers.Add)
def _add(layer: Any, call: Call) -> Rule:
    return _merged(Merge(layer, lambda values: values.sum(axis=0)), call)


@register_rule(layers.Subtract)
def _subtract(layer: Any, call: Call) -> Rule:
    return _merged(Merge(layer, lambda values: values[0] - values[1]), call)


@register_rule(layers.Average)
def _average(layer: Any, call: Call) -> Rule:
    return _merged(Merge(layer, lambda values: values.mean(axis=0)), call)


@register_rule(layers.Maximum)
def _maximum(layer: Any, call: Call) -> Rule:
    return _merged(Merge(layer, lambda values: values.max(axis=0)), call)


@register_rule(layers.Minimum)
def _minimum(layer: Any, call: Call) -> Rule:
    return _merged(Merge(layer, lambda values: values.min(axis=0)), call)


@register_rule(layers.Multiply)
def _multiply(layer: Any, call: Call) -> Rule:
    return _merged(Product(layer), call)


def _operator(maker: RuleMaker) -> RuleMaker:
    """The rule of `x + y`; in `x + 1`, the model knows one of the two only."""

    def rule(layer: Any, call: Call) -> Rule:
        if len(call.inputs) != 2:
            return Rule(layer, NO_RULE.format(type(layer).__name__))
        return maker(layer, call)

    return rule


# Functions of `keras.ops` in a Functional model, by the class that Keras has for each.
OPERATIONS: dict[str | None, RuleMaker] = {
    "Add": _operator(_add),
    "Subtract": _operator(_subtract),
    "Multiply": _operator(_multiply),
    "Maximum": _operator(_maximum),
    "Minimum": _operator(_minimum),
    "Elu": _elementwise,
    "Gelu": _elementwise,
    "HardSigmoid": _elementwise,
    "LeakyRelu": _elementwise,
    "Relu": _elementwise,
    "Relu6": _elementwise,
    "Sigmoid": _elementwise,
    "Silu": _elementwise,
    "Softplus": _elementwise,
    "Tanh": _elementwise,
}


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def _is_last(axis: int, call: Call) -> bool:
    return axis in (-1, len(call.input_shapes[0]) - 1)


def _padding(layer: Any) -> str:
    is_point = all(size == 1 for size in layer.kernel_size)
    return "" if layer.padding == "valid" or is_point else f"padding={layer.padding!r}"


def _regrouped(rule: Rule, call: Call) -> Rule:
    """The rule if all sizes are known, which it needs."""
    shapes = [*call.input_shapes[0][1:], *call.output_shapes[0][1:]]
    return rule if all(shapes) else Rule(rule.layer, "its shapes are not known")


def _merged(rule: Rule, call: Call) -> Rule:
    """The rule if the tensors have as many axes and channels as each other."""
    if len({(len(shape), shape[-1]) for shape in call.input_shapes}) == 1:
        return rule
    return Rule(rule.layer, "its inputs have different numbers of axes or channels")
