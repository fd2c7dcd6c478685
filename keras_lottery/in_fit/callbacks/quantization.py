"""Training that knows of the eight bits its weights will be stored in."""

from functools import partial
from typing import Any

import keras
from keras import layers, ops

from keras_lottery.in_fit.callbacks.common import check_masked
from keras_lottery.keras_bridge.internals.patches import at_last
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.keras_bridge.layers.masked import Masked

LARGEST = 127  # LiteRT leaves -128 out, so that zero is in the middle.


class QuantizationAware(keras.callbacks.Callback):
    """Trains a masked model with its kernels rounded as LiteRT's int8 files round them.

    The masked kernels are read as w' = s round(w / s), with a scale s = max |w| / 127
    of each output channel; gradients pass as if they had not been rounded. Zero is one
    of the values, so that pruned weights stay zero in training, and in the file. When
    training ends, the rounded values become the weights: the model is an ordinary
    masked model again, and `export.to_litert(model, quantize="int8")`, or `"dynamic"`,
    stores its very values. Weights that another callback puts back at the end, as
    `EarlyStopping(restore_best_weights=True)` does, are rounded too.

    Activations, which `"int8"` quantises as well, are trained as floats, and so are
    embeddings and layers without masks. Files written meanwhile hold unrounded weights.
    A training that raises leaves the model rounding; the next one with this callback
    ends that.

    Raises:
        ValueError: when training begins, if the model is not masked.

    Reference:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference", section 3; Bengio et al. 2013, "Estimating
        or propagating gradients through stochastic neurons", for the gradient.

    Example:

    ```python
    model.fit(x, y, epochs=2, callbacks=[kl.callbacks.QuantizationAware()])
    kl.export.to_litert(model, "model.tflite", quantize="int8", representative_data=x)
    ```
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        check_masked(self)
        for layer in self._layers():
            layer.rounding = partial(_straight_through, layer)
        # What was traced before does not know of it.
        self.model.make_train_function(force=True)
        self.model.test_function = self.model.predict_function = None

    def on_train_end(self, logs: dict | None = None) -> None:
        at_last(self, self._round)

    def _round(self) -> None:
        for layer in self._layers():
            layer.rounding = None
            for name in layer.masked_weights:
                weight = rounded(getattr(layer, name), _inputs(layer, name))
                layer.weight_variable(name).assign(weight)
        model = self.model
        model.train_function = model.test_function = model.predict_function = None

    def _layers(self) -> list[Any]:
        return [layer for _, layer in walk(self.model) if isinstance(layer, Masked)]


def rounded(weight: Any, axes: tuple[int, ...] | None) -> Any:
    """The nearest values that LiteRT's eight bits can hold; zeros stay zero.

    Args:
        weight: a kernel.
        axes: what is not an axis of the channels that have a scale each; `None` for
            weights that are not quantised.
    """
    weight = ops.convert_to_tensor(weight)
    if axes is None:
        return weight
    scale = ops.max(ops.abs(weight), axis=axes, keepdims=True) / LARGEST
    # A channel of zeros has none.
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    return scale * ops.round(weight / scale)


def _straight_through(layer: Any, name: str, weight: Any) -> Any:
    weight = ops.convert_to_tensor(weight)
    change = rounded(weight, _inputs(layer, name)) - weight
    return weight + ops.stop_gradient(change)


def _inputs(layer: Any, name: str) -> tuple[int, ...] | None:
    """The axes of a weight that are summed over, which its outputs are not on."""
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
