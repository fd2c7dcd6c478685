"""How a layer treats channels: what each way of doing it has to say."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_lottery.structured.channels import Call, Channels, Tensor, width

Weights = dict[str, np.ndarray]
Keep = Callable[[Tensor], np.ndarray]


class Rule:
    """How a layer treats channels; this one keeps all that the layer reads and makes.

    Args:
        layer: the layer, with its weights.
        reason: why nothing can be removed around it, for the report.
    """

    # Whether channels that enter or leave the layer in two places go together.
    ties_calls = True

    def __init__(self, layer: Any, reason: str = "") -> None:
        self.layer = layer
        self.reason = reason
        self.calls: list[Call] = []

    def link(self, call: Call, channels: Channels) -> None:
        """Gives the call its output tensors, and ties channels that go together."""
        for shape in call.output_shapes:
            call.outputs.append(channels.new_tensor(width(shape)))
        for tensor in [*call.inputs, *call.outputs]:
            channels.fix(tensor)

    def values(self, call: Call) -> list[np.ndarray]:
        """The constants among the channels of each output."""
        return [tensor.value for tensor in call.outputs]

    def needs(self, call: Call) -> list[np.ndarray]:
        """Which channels of each input are needed for the outputs that are needed."""
        return [np.ones(tensor.width, bool) for tensor in call.inputs]

    def stuck(self, call: Call) -> list[np.ndarray]:
        """Which constants of each input are needed and known no longer behind it."""
        return [
            tensor.constant & need
            for tensor, need in zip(call.inputs, self.needs(call), strict=True)
        ]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        """What changes in the layer's config, and its new weights by attribute.

        Args:
            keep: which channels of a tensor stay.
        """
        return {}, {}

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        """What stays of an array of a weight's shape, such as its initial values."""
        return array

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: Keep
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that the smaller layer is called with."""
        return args, kwargs

    def tie_calls(self, call: Call, channels: Channels) -> None:
        """Ties a shared layer's inputs, and its outputs, over its calls."""
        first = self.calls[0]
        if self.ties_calls and call is not first:
            before, now = first.inputs + first.outputs, call.inputs + call.outputs
            for one, other in zip(before, now, strict=True):
                channels.tie(one.atoms, other.atoms)


def common(values: np.ndarray) -> np.ndarray:
    """The value that all along the first axis have, or NaN."""
    return np.where((values == values[0]).all(axis=0), values[0], np.nan)


def array_of(variable: Any) -> np.ndarray:
    """The numbers of a variable or tensor."""
    return np.asarray(ops.convert_to_numpy(variable))


def weights_of(layer: Any) -> Weights:
    """The arrays of a layer's own weights, by the attribute that holds them."""
    # A function of `keras.ops` is no layer.
    return {
        _attribute(layer, weight): array_of(weight)
        for weight in getattr(layer, "weights", ())
    }


def _attribute(layer: Any, weight: Any) -> str:
    """Where a layer keeps a weight: by its name, if it has one of its own."""
    if hasattr(layer, weight.name):
        return weight.name
    return next(name for name, value in vars(layer).items() if value is weight)
