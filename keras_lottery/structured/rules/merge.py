"""Rules of layers that merge several tensors into one, channel by channel."""

from typing import Any

import keras
import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.constants import computed
from keras_lottery.structured.rules.per_channel import cut_constant
from keras_lottery.structured.rules.rule import Keep, Rule


class Merge(Rule):
    """Several tensors become one, channel by channel.

    A tensor with a single channel, such as an attention map, is broadcast.

    Args:
        layer: the layer, or the function of `keras.ops`.
    """

    ties_calls = False

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, "other channels are live there")

    def link(self, call: Call, channels: Channels) -> None:
        first, *others = [x for x in call.inputs if x.width == self._width(call)]
        call.outputs.append(Tensor(first.atoms))
        for other in others:
            channels.tie(first.atoms, other.atoms)

    def values(self, call: Call) -> list[np.ndarray]:
        return [computed(call)]

    def needs(self, call: Call) -> list[np.ndarray]:
        return self._spread(call, [call.outputs[0].needed] * len(call.inputs))

    def stuck(self, call: Call) -> list[np.ndarray]:
        lost = call.outputs[0].needed & ~call.outputs[0].constant
        return self._spread(call, [lost & tensor.constant for tensor in call.inputs])

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: Keep
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kept = keep(self.calls[0].outputs[0])
        cut = lambda value: cut_constant(value, kept)  # noqa: E731
        return keras.tree.map_structure(cut, (args, kwargs))

    def _width(self, call: Call) -> int:
        return max(tensor.width for tensor in call.inputs)

    def _spread(self, call: Call, wanted: list[np.ndarray]) -> list[np.ndarray]:
        """Maps booleans of the output channels back to the channels of each input."""
        return [
            own.copy() if tensor.width == len(own) else np.array([own.any()])
            for tensor, own in zip(call.inputs, wanted, strict=True)
        ]


class Product(Merge):
    """A product: if one factor is zero, the others are not needed."""

    def values(self, call: Call) -> list[np.ndarray]:
        return [np.where(self._zeros(call).any(axis=0), 0.0, super().values(call)[0])]

    def needs(self, call: Call) -> list[np.ndarray]:
        zero = self._zeros(call)
        first = zero & (np.cumsum(zero, axis=0) == 1)
        wanted = call.outputs[0].needed & (first | ~zero.any(axis=0))
        return self._spread(call, list(wanted))

    def _zeros(self, call: Call) -> np.ndarray:
        values = [tensor.value for tensor in call.inputs]
        return np.stack(np.broadcast_arrays(*values)) == 0


def merged(layer: Any, call: Call) -> Rule:
    """Returns the rule if the inputs' numbers of axes and channels fit the output's."""
    (made,) = call.output_shapes
    widths = {shape[-1] for shape in call.input_shapes}
    if len({len(shape) for shape in call.input_shapes}) > 1 or not (
        made[-1] in widths <= {1, made[-1]}
    ):
        return Rule(layer, "its inputs have different numbers of axes or channels")
    return Product(layer) if type(layer).__name__ == "Multiply" else Merge(layer)
