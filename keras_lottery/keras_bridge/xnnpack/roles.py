"""The role of each layer in XNNPACK's sparse path, by the kernels of XNNPACK."""

from typing import Any

from keras import layers

from keras_lottery.keras_bridge.internals.graph import function_name
from keras_lottery.keras_bridge.xnnpack.steps import (
    CONVOLUTIONS,
    Role,
    Step,
    behind,
    is_convolution,
    kind_of,
    square,
)

IDENTITIES = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)
"""Layers that do nothing in inference."""

ACTIVATIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "gelu", "sigmoid", "tanh"),
    *("silu", "hard_silu"),
}
"""Activations that XNNPACK computes in any order of the axes."""


def role_of(step: Step) -> tuple[Role, str]:
    """Returns the role that a step can have, and why it has no better one."""
    layer, kind = step.layer, kind_of(step.layer)
    if step.reason:
        return Role.OUTSIDE, step.reason
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return Role.OUTSIDE, "its data_format is not 'channels_last'"
    if kind in IDENTITIES or (
        kind is layers.Reshape and step.input_shape == step.output_shape
    ):
        return Role.NONE, ""
    if kind is layers.BatchNormalization:
        return _normalizes(step)
    if kind is layers.ZeroPadding2D:
        return _pads(step)
    if kind in CONVOLUTIONS:
        return _convolution(step)
    if kind in (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Activation):
        return _activation(layer, kind)
    if kind in (layers.Add, layers.Multiply) or function_name(layer) in (
        "Add",
        "Multiply",
    ):
        return Role.INSIDE, ""
    if kind is layers.GlobalAveragePooling2D:
        return Role.END, ""
    return Role.OUTSIDE, f"XNNPACK has no channels-first {kind.__name__}"


def _activation(layer: Any, kind: type) -> tuple[Role, str]:
    if kind is layers.ReLU and (layer.negative_slope or layer.threshold):
        return Role.OUTSIDE, "its slope and threshold are not those of a plain ReLU"
    if kind is layers.ReLU and layer.max_value not in (None, 6):
        return Role.OUTSIDE, f"its max_value={layer.max_value:g} becomes a constant"
    if kind is layers.ELU and layer.alpha != 1:
        return Role.OUTSIDE, f"its alpha={layer.alpha:g} becomes a constant"
    if kind is layers.Activation and _function(layer) not in ACTIVATIONS:
        return Role.OUTSIDE, f"its activation is {_function(layer)!r}"
    return Role.INSIDE, ""


def _function(layer: Any) -> str:
    return str(getattr(layer.activation, "__name__", type(layer.activation).__name__))


def _normalizes(step: Step) -> tuple[Role, str]:
    """Merges into the convolution directly before it, if nothing else reads that."""
    source = behind(step.sources[0])
    if (
        source is not None
        and is_convolution(source.layer)
        and _function(source.layer) == "linear"
        and step.sources[0] is not None
        and step.sources[0].readers == source.readers == 1
    ):
        return Role.NONE, ""
    return Role.OUTSIDE, "there is no convolution right before it to become part of"


def _pads(step: Step) -> tuple[Role, str]:
    """Merges into the convolution that reads it, if nothing else reads it."""
    if step.readers == 1:
        return Role.NONE, ""
    return Role.OUTSIDE, "several layers read it"


def padding_of(step: Step) -> Any:
    """Returns the padding of the image that a convolution reads.

    It is `((top, bottom), (left, right))`, or `"same"` if TensorFlow chooses it.
    """
    if step.layer.padding == "same":
        size = square(step.layer.kernel_size)
        # At stride 1, the padding is the same on each side.
        even = square(step.layer.strides) == 1 and size % 2
        return ((size // 2,) * 2,) * 2 if even else "same"
    source = step.sources[0]
    if source is not None and kind_of(source.layer) is layers.ZeroPadding2D:
        return tuple(map(tuple, source.layer.padding)) if source.readers == 1 else "no"
    return ((0, 0), (0, 0))


def wanted_padding(layer: Any) -> Any:
    """Returns the padding for which XNNPACK has a kernel.

    >>> wanted_padding(layers.DepthwiseConv2D(5, 2))
    ((2, 2), (2, 2))
    """
    return ((square(layer.kernel_size) // 2,) * 2,) * 2


def can_start(layer: Any) -> bool:
    """Whether a layer is a convolution that starts a sparse part, if its padding fits.

    >>> can_start(layers.Conv2D(8, 3, 2))  # Its input channels are not known yet.
    False
    """
    return (
        kind_of(layer) is layers.Conv2D
        and layer.built
        and square(layer.kernel_size) == 3
        and square(layer.strides) == 2
        and int(layer.kernel.shape[-2]) == 3
    )


def fits_but_for_padding(step: Step) -> str:
    """Returns why XNNPACK has no channels-first kernel at any padding; "" if it has."""
    layer, kind = step.layer, kind_of(step.layer)
    size, stride = square(layer.kernel_size), square(layer.strides)
    if square(layer.dilation_rate) != 1:
        return "it is dilated"
    if kind is layers.Conv2D:
        if layer.groups != 1:
            return "it has groups"
        if size == 1:
            return "" if stride == 1 else "a 1x1 convolution needs a stride of 1"
        if can_start(layer):
            return ""
        return (
            "of convolutions that are not 1x1, only one of 3x3, stride 2 and three "
            "input channels can start a part"
        )
    if layer.depth_multiplier != 1:
        return "its depth_multiplier is not 1"
    if size not in (3, 5) or stride not in (1, 2):
        return "depthwise kernels are 3x3 or 5x5, of stride 1 or 2"
    return ""


def _convolution(step: Step) -> tuple[Role, str]:
    layer = step.layer
    reason = fits_but_for_padding(step)
    if not reason and padding_of(step) != wanted_padding(layer):
        size = square(layer.kernel_size) // 2
        given = padding_of(step)
        said = "'same' at stride 2" if given == "same" else f"{given}"
        reason = (
            f"its padding is {said}, where XNNPACK needs {size} on each side: "
            f"`ZeroPadding2D({size})` and 'valid'"
        )
    if not reason and _function(layer) not in ACTIVATIONS:
        reason = f"its activation is {_function(layer)!r}"
    if reason:
        return Role.OUTSIDE, reason
    starts = kind_of(layer) is layers.Conv2D and square(layer.kernel_size) == 3
    return (Role.START if starts else Role.INSIDE), ""
