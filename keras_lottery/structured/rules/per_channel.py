"""Rules of layers that treat each channel separately, such as activations."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.constants import computed
from keras_lottery.structured.rules.rule import (
    Keep,
    Rule,
    Weights,
    array_of,
    weights_of,
)


class PerChannel(Rule):
    """Each output channel depends only on the input channel of the same index.

    Args:
        layer: the layer.
        function: returns the outputs for constant inputs of shape (channels,), and NaN
            for outputs that are not constant.
        ignores: channels whose output is constant whatever the input.
        reason: why a constant does not stay one, for the report.
        config: the config's changes, given which channels stay.
    """

    def __init__(
        self,
        layer: Any,
        function: Callable[[np.ndarray], np.ndarray] = lambda value: value,
        ignores: np.ndarray | bool = False,
        reason: str = "",
        config: Callable[[np.ndarray], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(layer, reason)
        self.function = function
        self.ignores = ignores
        self.config = config
        self.ties_calls = bool(weights_of(layer)) or config is not None

    def link(self, call: Call, channels: Channels) -> None:
        call.outputs.append(Tensor(call.inputs[0].atoms))
        self.tie_calls(call, channels)

    def values(self, call: Call) -> list[np.ndarray]:
        value = call.inputs[0].value
        known = ~np.isnan(value) | self.ignores
        return [np.where(known, self.function(np.nan_to_num(value)), np.nan)]

    def needs(self, call: Call) -> list[np.ndarray]:
        return [call.outputs[0].needed & ~np.asarray(self.ignores)]

    def stuck(self, call: Call) -> list[np.ndarray]:
        lost = call.inputs[0].constant & ~call.outputs[0].constant
        return [lost & call.outputs[0].needed]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        own = weights_of(self.layer)
        weights = {name: self.cut(name, array, keep) for name, array in own.items()}
        kept = keep(self.calls[0].inputs[0])
        return self.config(kept) if self.config else {}, weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        # All weights of such layers have their channels last; a PReLU may have one
        # slope for all channels.
        kept = keep(self.calls[0].inputs[0])
        return array if array.shape[-1] == 1 else array[..., kept]


class Computed(PerChannel):
    """Treats each channel by itself, and finds constant outputs by running the layer.

    Arrays among the arguments that have an entry for each channel shrink with the
    channels.

    Args:
        layer: the layer, or the function of `keras.ops`.
        config: the config's changes, given which channels stay.
        at_points: whether each position is computed from itself alone.
    """

    def __init__(
        self,
        layer: Any,
        config: Callable[[np.ndarray], dict[str, Any]] | None = None,
        at_points: bool = False,
    ) -> None:
        reason = "a constant does not stay one at every position"
        super().__init__(layer, reason=reason, config=config)
        self.at_points = at_points

    def values(self, call: Call) -> list[np.ndarray]:
        return [computed(call, self.at_points)]

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: Keep
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kept = keep(self.calls[0].inputs[0])
        cut = lambda value: cut_constant(value, kept)  # noqa: E731
        return keras.tree.map_structure(cut, (args, kwargs))


def cut_constant(value: Any, kept: np.ndarray) -> Any:
    """Returns an argument; an array with an entry for each channel is cut."""
    if isinstance(value, keras.KerasTensor):
        return value
    # The shape of a scalar TensorFlow tensor is not false in a condition.
    shape = tuple(getattr(value, "shape", None) or ())
    return array_of(value)[..., kept] if shape[-1:] == (len(kept),) else value
