"""The interface of rules, which state how a layer treats channels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_lottery.structured.channels import Call, Channels, Tensor, width

Weights = dict[str, np.ndarray]
Keep = Callable[[Tensor], np.ndarray]


class Rule:
    """How a layer treats channels; this base class keeps all inputs and outputs.

    Args:
        layer: the layer, with its weights.
        reason: why nothing can be removed around it, for the report.
    """

    # Whether the channels of all calls of a shared layer are removed together.
    ties_calls = True

    def __init__(self, layer: Any, reason: str = "") -> None:
        self.layer = layer
        self.reason = reason
        self.calls: list[Call] = []

    def link(self, call: Call, channels: Channels) -> None:
        """Gives the call its output tensors, and ties channels that belong together."""
        for shape in call.output_shapes:
            call.outputs.append(channels.new_tensor(width(shape)))
        for tensor in [*call.inputs, *call.outputs]:
            channels.fix(tensor)

    def values(self, call: Call) -> list[np.ndarray]:
        """Returns the values of the constant channels of each output, else NaN."""
        return [tensor.value for tensor in call.outputs]

    def needs(self, call: Call) -> list[np.ndarray]:
        """Marks the channels of each input that the needed outputs need."""
        return [np.ones(tensor.width, bool) for tensor in call.inputs]

    def stuck(self, call: Call) -> list[np.ndarray]:
        """Marks the constants of each input that are needed and not folded here."""
        return [
            tensor.constant & need
            for tensor, need in zip(call.inputs, self.needs(call), strict=True)
        ]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        """Returns the changes of the layer's config, and its new weights by attribute.

        Args:
            keep: returns which channels of a tensor stay.
        """
        return {}, {}

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        """Cuts an array of a weight's shape, such as its initial values."""
        return array

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: Keep
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments that the smaller layer is called with."""
        return args, kwargs

    def tie_calls(self, call: Call, channels: Channels) -> None:
        """Ties the inputs, and the outputs, of all calls of a shared layer."""
        first = self.calls[0]
        if self.ties_calls and call is not first:
            before, now = first.inputs + first.outputs, call.inputs + call.outputs
            for one, other in zip(before, now, strict=True):
                channels.tie(one.atoms, other.atoms)


def common(values: np.ndarray) -> np.ndarray:
    """Returns the value that is the same along the first axis, or NaN."""
    return np.where((values == values[0]).all(axis=0), values[0], np.nan)


def array_of(variable: Any) -> np.ndarray:
    """Returns a variable or tensor as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(variable))


def weights_of(layer: Any) -> Weights:
    """Returns the arrays of a layer's own weights, by the attribute that holds them."""
    # A function of `keras.ops` is not a layer and has no weights.
    return {
        _attribute(layer, weight): array_of(weight)
        for weight in getattr(layer, "weights", ())
    }


def _attribute(layer: Any, weight: Any) -> str:
    """Returns the attribute that holds a weight; the weight's name if there is one."""
    if hasattr(layer, weight.name):
        return weight.name
    return next(name for name, value in vars(layer).items() if value is weight)
