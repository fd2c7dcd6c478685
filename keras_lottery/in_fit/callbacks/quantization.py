"""Quantisation-aware training, for weights that will be stored in eight bits."""

from collections.abc import Collection, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.common import check_masked
from keras_lottery.keras_bridge.internals.patches import at_last, change_inputs
from keras_lottery.keras_bridge.layers import get_masks, walk
from keras_lottery.keras_bridge.layers.masked import Masked
from keras_lottery.tickets.allocation.names import check_names, included

Axes = tuple[int, ...] | None
LARGEST = 127  # LiteRT does not use -128, so that zero is in the middle.


class Rounding:
    """Reads a layer's weights rounded, with gradients as if they were not rounded.

    Args:
        axes: see `rounded`, by the weights' names.
    """

    def __init__(self, axes: dict[str, Axes]) -> None:
        self.axes = axes

    def __call__(self, name: str, weight: Any) -> Any:
        weight = ops.convert_to_tensor(weight)
        change = rounded(weight, self.axes[name]) - weight
        return weight + ops.stop_gradient(change)


class QuantizationAware(keras.callbacks.Callback):
    """Trains a masked model with its kernels rounded as LiteRT's int8 files round them.

    The model uses its masked kernels as w' = s round(w / s), with a scale
    s = max |w| / 127 for each output channel; gradients pass as if there were no
    rounding. Zero is one of the values, so that pruned weights stay zero both in
    training and in the file. When training ends, the rounded values become the weights:
    the model is an ordinary masked model again, and
    `export.to_litert(model, quantize="int8")`, or `"dynamic"`, stores exactly these
    values. Weights that another callback restores at the end, as
    `EarlyStopping(restore_best_weights=True)` does, are rounded too.

    Activations, which `"int8"` quantises as well, are trained as floats unless
    `activations=True`. Embeddings and layers without masks are trained as floats; these
    include depthwise convolutions, unless `prunable=` of `mask_model` chooses them. To
    train a model without pruning it, use `mask_model(model, lambda layer: True)`, whose
    masks are dense.

    In one training with `SharedWeights`, each kernel whose weights share values is
    rounded by a single scale, so that the values stay shared: zero, and no more values
    than before. A file's own scales, one for each channel, then round them once more.

    Files that are written during training hold unrounded weights. If a training raises,
    the model continues to round its kernels until the next training with this callback.

    Args:
        exclude: patterns of weights or layers that are trained as floats.
        activations: whether the inputs of a layer with a rounded kernel are rounded as
            well: to 256 values from the smallest to the largest of a batch, including
            zero. A file has ranges of its own, which come from `representative_data`.

    Raises:
        ValueError: if `activations` is no boolean; when training begins, if the
            model is not masked, or a pattern matches none of its masked weights.

    Reference:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference", section 3; Bengio et al. 2013, "Estimating
        or propagating gradients through stochastic neurons", for the gradient.

    Example::

        model.fit(x, y, epochs=2, callbacks=[kl.callbacks.QuantizationAware()])
        file = "model.tflite"
        kl.export.to_litert(model, file, quantize="int8", representative_data=x)
    """

    def __init__(self, exclude: Sequence[str] = (), activations: bool = False) -> None:
        super().__init__()
        check_names(exclude=exclude)
        self.exclude = exclude
        self.activations = checks.flag("activations", activations)

    def on_train_begin(self, logs: dict | None = None) -> None:
        check_masked(self)
        chosen = included(get_masks(self.model), self.exclude)
        for path, layer in self._layers():
            axes = {
                name: _inputs(layer, name) if f"{path}/{name}" in chosen else None
                for name in layer.masked_weights
            }
            layer.rounding = Rounding(axes)
            has_rounded = any(each is not None for each in axes.values())
            chosen_too = self.activations and has_rounded
            change_inputs(layer, rounded_activation if chosen_too else None)
        # A function that was traced before does not round.
        self.model.make_train_function(force=True)
        self.model.test_function = self.model.predict_function = None

    def on_train_end(self, logs: dict | None = None) -> None:
        at_last(self, self._round)

    def _round(self) -> None:
        for _, layer in self._layers():
            axes = layer.rounding.axes
            layer.rounding = None
            change_inputs(layer, None)
            for name in layer.masked_weights:
                weight = rounded(getattr(layer, name), axes[name])
                layer.weight_variable(name).assign(weight)
        model = self.model
        model.train_function = model.test_function = model.predict_function = None

    def _layers(self) -> list[tuple[str, Any]]:
        return [
            (p, layer) for p, layer in walk(self.model) if isinstance(layer, Masked)
        ]


def round_alike(model: keras.Model, names: Collection[str]) -> None:
    """Makes `QuantizationAware` round each of these weights by a single scale.

    Equal values then stay equal.
    """
    for path, layer in walk(model):
        if isinstance(layer, Masked) and isinstance(layer.rounding, Rounding):
            axes = layer.rounding.axes
            for name in layer.masked_weights:
                if f"{path}/{name}" in names and axes[name] is not None:
                    axes[name] = tuple(range(len(layer.weight_variable(name).shape)))


def rounded(weight: Any, axes: Axes) -> Any:
    """The nearest values that LiteRT's eight bits can hold; zeros stay zero.

    Args:
        weight: a kernel.
        axes: the axes over which a scale is shared, which are all but the axis of the
            output channels; `None` for weights that are not quantised.
    """
    weight = ops.convert_to_tensor(weight)
    if axes is None:
        return weight
    scale = ops.max(ops.abs(weight), axis=axes, keepdims=True) / LARGEST
    # The scale of a channel of zeros would be zero.
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    return scale * ops.round(weight / scale)


def rounded_activation(x: Any) -> Any:
    """The nearest of 256 values, from the smallest to the largest; zero is one of them.

    Gradients pass as if there were no rounding. Inputs that are not floats stay as they
    are.

    >>> x = rounded_activation(ops.convert_to_tensor([-0.1, 0.0, 0.2003, 25.4]))
    >>> [round(float(value), 4) for value in x]
    [-0.1, 0.0, 0.2, 25.4]
    """
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        return x
    low, high = ops.minimum(ops.min(x), 0), ops.maximum(ops.max(x), 0)
    scale = (high - low) / 255
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    zero = ops.round(low / scale)
    steps = ops.clip(ops.round(x / scale), zero, zero + 255)
    return x + ops.stop_gradient(scale * steps - x)


def _inputs(layer: Any, name: str) -> Axes:
    """The axes of a weight that belong to its inputs and not to its outputs."""
    rank = len(layer.weight_variable(name).shape)
    if rank < 2 or isinstance(layer, layers.Embedding):
        return None
    if name == "depthwise_kernel" or isinstance(
        layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D
    ):
        outputs = {rank - 2, rank - 1}
    elif isinstance(
        layer, layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose
    ):
        outputs = {rank - 2}
    elif isinstance(layer, layers.EinsumDense):
        terms, result = layer.equation.split("->")
        kernel = terms.split(",")[1]
        outputs = {axis for axis, letter in enumerate(kernel) if letter in result}
    else:
        outputs = {rank - 1}
    return tuple(axis for axis in range(rank) if axis not in outputs)
