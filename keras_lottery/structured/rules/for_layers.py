"""The rules for Keras's layers."""

from typing import Any

import numpy as np
from keras import layers

from keras_lottery.keras_bridge.internals.versions import ADAPTIVE_POOLING
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.structured.activations import apply, is_elementwise
from keras_lottery.structured.channels import Call
from keras_lottery.structured.rules.attention import ATTENTION, Attention
from keras_lottery.structured.rules.einsum import Einsum, is_dense
from keras_lottery.structured.rules.group_normalization import GroupNormalized
from keras_lottery.structured.rules.grouped import Grouped
from keras_lottery.structured.rules.linear import Linear
from keras_lottery.structured.rules.lookup import Lookup
from keras_lottery.structured.rules.masked_mean import MaskedMean
from keras_lottery.structured.rules.merge import merged
from keras_lottery.structured.rules.parts import Concatenation
from keras_lottery.structured.rules.per_channel import Computed, PerChannel
from keras_lottery.structured.rules.regrouping import Regrouping, regrouped
from keras_lottery.structured.rules.rule import Rule, array_of, common
from keras_lottery.structured.rules.standardized import Standardized
from keras_lottery.structured.rules.table import register_operations, register_rule

MIXING = "its activation may mix channels"
OVER_CHANNELS = "it goes over the channels, and those that are removed would count"
MOVED = "it moves the channels to another axis"


@register_rule(layers.Dense)
def _dense(layer: Any, call: Call) -> Rule:
    kernel = array_of(layer.kernel)
    return Linear(layer, kernel, kernel != 0, "units", {"kernel": (0, 1)})


@register_rule(layers.EinsumDense)
def _einsum_dense(layer: Any, call: Call) -> Rule:
    if not is_dense(layer):
        return Rule(layer, f"its equation {layer.equation!r} is not that of a Dense")
    return Einsum(layer)


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def _conv(layer: Any, call: Call) -> Rule:
    if layer.groups != 1:
        return _grouped(layer)
    return _convolution(layer, array_of(layer.kernel), (-2, -1), _padding(layer))


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def _conv_transpose(layer: Any, call: Call) -> Rule:
    reason = "a transposed convolution adds them up unevenly"
    kernel = np.swapaxes(array_of(layer.kernel), -1, -2)
    return _convolution(layer, kernel, (-1, -2), reason)


def _convolution(
    layer: Any, kernel: np.ndarray, axes: tuple[int, int], reason: str
) -> Linear:
    """Returns the rule of a kernel with axes (*positions, inputs, filters)."""
    positions = tuple(range(kernel.ndim - 2))
    return Linear(
        layer,
        kernel.sum(positions, dtype="float64"),
        (kernel != 0).any(positions),
        "filters",
        {"kernel": axes},
        reason,
    )


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def _separable(layer: Any, call: Call) -> Rule:
    depthwise = array_of(layer.depthwise_kernel)
    pointwise = array_of(layer.pointwise_kernel)[(0,) * (depthwise.ndim - 2)]
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
        return Rule(layer, MIXING)
    kernel = array_of(layer.kernel)
    positions = tuple(range(kernel.ndim - 2))
    return Grouped(
        layer,
        kernel.sum(positions, dtype="float64")[:, np.newaxis],
        (kernel != 0).any(positions)[:, np.newaxis],
        {"kernel": (-2, None)},
        _padding(layer),
    )


def _grouped(layer: Any) -> Rule:
    if not is_elementwise(layer.activation):
        return Rule(layer, MIXING)
    kernel = array_of(layer.kernel)
    inputs, filters = kernel.shape[-2:]
    outputs = filters // layer.groups
    # (groups, positions, inputs, outputs)
    parts = kernel.reshape(-1, inputs, layer.groups, outputs).transpose(2, 0, 1, 3)
    return Grouped(
        layer,
        parts.sum(1, dtype="float64"),
        (parts != 0).any(1),
        {"kernel": (None, -1)},
        _padding(layer),
        lambda groups: {"groups": groups, "filters": groups * outputs},
    )


@register_rule(*ATTENTION)
def _attention(layer: Any, call: Call) -> Rule:
    for _, one in walk(layer):
        if getattr(one, "quantization_mode", None) or getattr(
            one, "lora_enabled", False
        ):
            return Rule(layer, "its layers are quantized or have LoRA weights")
    return Attention(layer)


@register_rule(layers.BatchNormalization)
def _batch_normalization(layer: Any, call: Call) -> Rule:
    if not _is_last(layer.axis, call):
        return Rule(layer, f"it has axis={layer.axis}")
    mean, variance = array_of(layer.moving_mean), array_of(layer.moving_variance)
    gamma = array_of(layer.gamma) if layer.scale else np.ones(len(mean))
    beta = array_of(layer.beta) if layer.center else np.zeros(len(mean))
    scale = gamma / np.sqrt(variance.astype("float64") + layer.epsilon)
    return PerChannel(layer, lambda v: (v - mean) * scale + beta, ignores=gamma == 0)


@register_rule(layers.PReLU)
def _prelu(layer: Any, call: Call) -> Rule:
    alpha = array_of(layer.alpha).reshape(-1, layer.alpha.shape[-1])
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
        return Rule(layer, MIXING)
    return PerChannel(layer, lambda value: apply(layer, value))


@register_rule(
    layers.ActivityRegularization,
    *ADAPTIVE_POOLING,
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


@register_rule(layers.GlobalAveragePooling1D)
def _mean_of_positions(layer: Any, call: Call) -> Rule:
    return MaskedMean(layer)


@register_rule(
    layers.CenterCrop,
    layers.Resizing,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
def _over_space(layer: Any, call: Call) -> Rule:
    return Computed(layer)


@register_rule(layers.Softmax)
def _softmax(layer: Any, call: Call) -> Rule:
    axes = len(call.input_shapes[0])
    if any(axis % axes == axes - 1 for axis in np.atleast_1d(layer.axis)):
        return Rule(layer, OVER_CHANNELS)
    return Computed(layer)


@register_rule(layers.Dot)
def _dot(layer: Any, call: Call) -> Rule:
    return Rule(layer, "it sums products of channels, those of constants among them")


@register_rule(layers.Rescaling)
def _rescaling(layer: Any, call: Call) -> Rule:
    def config(kept: np.ndarray) -> dict[str, Any]:
        both = {"scale": layer.scale, "offset": layer.offset}
        return {
            name: array_of(value)[..., kept].tolist()
            for name, value in both.items()
            if np.shape(value)[-1:] == kept.shape
        }

    return Computed(layer, config, at_points=True)


@register_rule(layers.Normalization)
def _normalization(layer: Any, call: Call) -> Rule:
    axes = len(call.input_shapes[0])
    if any(axis % axes != axes - 1 for axis in layer.axis):
        return Rule(layer, f"it has axis={layer.axis}")
    return Standardized(layer, at_points=True)


@register_rule(layers.GroupNormalization)
def _group_normalization(layer: Any, call: Call) -> Rule:
    if not _is_last(layer.axis, call):
        return Rule(layer, f"it has axis={layer.axis}")
    return GroupNormalized(layer, call.input_shapes[0][-1])


@register_rule(
    layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization
)
def _layer_normalization(layer: Any, call: Call) -> Rule:
    return Rule(layer, "it normalises by statistics of all channels, zeros among them")


@register_rule(layers.Permute)
def _permute(layer: Any, call: Call) -> Rule:
    if layer.dims[-1] != len(layer.dims):
        return Rule(layer, MOVED)
    return PerChannel(layer)


@register_operations("LayerScale")
def _layer_scale(layer: Any, call: Call) -> Rule:
    """Returns the rule of the LayerScale layer of `keras.applications.ConvNeXt*`."""
    config = lambda kept: {"projection_dim": int(kept.sum())}  # noqa: E731
    return Computed(layer, config, at_points=True)


@register_operations("StochasticDepth")
def _stochastic_depth(layer: Any, call: Call) -> Rule:
    return PerChannel(layer)


@register_rule(layers.Flatten)
def _flatten(layer: Any, call: Call) -> Rule:
    return regrouped(Regrouping(layer), call)


@register_rule(layers.Reshape)
def _reshape(layer: Any, call: Call) -> Rule:
    def config(kept: np.ndarray) -> dict[str, Any]:
        return {"target_shape": (*layer.target_shape[:-1], int(kept.sum()))}

    if call.input_shapes[0][-1] == call.output_shapes[0][-1]:
        return PerChannel(layer, config=config)
    return regrouped(Regrouping(layer, config), call)


@register_rule(layers.Embedding)
def _embedding(layer: Any, call: Call) -> Rule:
    return Lookup(layer)


@register_rule(layers.Concatenate)
def _concatenate(layer: Any, call: Call) -> Rule:
    return Concatenation(layer) if _is_last(layer.axis, call) else merged(layer, call)


@register_rule(
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)
def _merge(layer: Any, call: Call) -> Rule:
    return merged(layer, call)


def _is_last(axis: int, call: Call) -> bool:
    return axis in (-1, len(call.input_shapes[0]) - 1)


def _padding(layer: Any) -> str:
    is_point = all(size == 1 for size in layer.kernel_size)
    return "" if layer.padding == "valid" or is_point else f"padding={layer.padding!r}"
