"""The rule of EinsumDense, whose equation says which axes its kernel has."""

from typing import Any

import numpy as np

from keras_lottery.structured.rules.linear import Linear
from keras_lottery.structured.rules.rule import Keep, Weights, array_of


class Einsum(Linear):
    """An EinsumDense that reads the last axis of its input and makes a new last axis.

    Constants may be followed through one only if it is a Dense layer, see `is_dense`.
    """

    def __init__(self, layer: Any) -> None:
        inputs, kernel, outputs = _labels(layer)
        axes = kernel.index(inputs[-1]), kernel.index(outputs[-1])
        array = np.moveaxis(array_of(layer.kernel), axes, (0, 1))
        matrices = array.reshape(*array.shape[:2], -1)
        reads = (matrices != 0).any(axis=-1)
        gains = matrices.sum(axis=-1)
        super().__init__(layer, gains, reads, "output_shape", {"kernel": axes})
        if layer.bias_axes and outputs[-1] not in layer.bias_axes:
            self.bias_axis = None

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        config, weights = super().shrink(keep)
        shape = (*self.layer.partial_output_shape[:-1], config["output_shape"])
        made = _labels(self.layer)[-1][-1]
        axes = (self.layer.bias_axes or made) if "bias" in weights else None
        return {"output_shape": shape, "bias_axes": axes}, weights


def is_linear(layer: Any) -> bool:
    """Whether an EinsumDense reads the last axis, and makes a new last axis."""
    inputs, kernel, outputs = _labels(layer)
    read, made = inputs[-1], outputs[-1]
    return {read, made} <= set(kernel) and read not in outputs and made not in inputs


def is_dense(layer: Any) -> bool:
    """Whether an EinsumDense is a Dense layer, as in `"btd,df->btf"`."""
    inputs, kernel, outputs = _labels(layer)
    return (
        is_linear(layer)
        and kernel == inputs[-1] + outputs[-1]
        and inputs[:-1] == outputs[:-1]
        and layer.bias_axes in (None, outputs[-1])
    )


def _labels(layer: Any) -> list[str]:
    """Returns the labels of the axes of an EinsumDense's input, kernel and output."""
    return layer.equation.replace("->", ",").split(",")
