"""The rule of weighted sums of channels: Dense layers and convolutions."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.structured.activations import apply, is_elementwise
from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, weights_of


class Linear(Rule):
    """Each output channel is a weighted sum of the input channels plus a bias.

    Args:
        layer: the layer.
        gains: array (inputs, outputs): the amount that an input that is 1 everywhere
            adds to an output, away from padding.
        reads: boolean array (inputs, outputs): whether the output depends on the input.
        units: the config's name for the number of outputs.
        axes: the axes (inputs, outputs) of each weight, `None` for an axis that it
            lacks.
        padded: why constants other than zero do not stay constant; empty if they do.
    """

    # `None` if the bias has no entry for each output.
    bias_axis: int | None = -1

    def __init__(
        self,
        layer: Any,
        gains: np.ndarray,
        reads: np.ndarray,
        units: str,
        axes: Mapping[str, tuple[int | None, int | None]],
        padded: str = "",
    ) -> None:
        super().__init__(layer, padded)
        self.gains = gains
        self.reads = reads
        self.units = units
        self.axes = axes
        self.bias = weights_of(layer).get("bias", np.zeros(gains.shape[1]))
        activation = getattr(layer, "activation", None)
        self.activation = activation or keras.activations.linear
        self.is_followed = is_elementwise(self.activation)

    def link(self, call: Call, channels: Channels) -> None:
        first = self.calls[0]
        outputs = self.gains.shape[1]
        new = channels.new_tensor(outputs) if call is first else None
        call.outputs.append(new or Tensor(first.outputs[0].atoms))
        if not self.is_followed:
            channels.fix(call.outputs[0])
        self.tie_calls(call, channels)

    def folded(self) -> np.ndarray:
        """Returns the values of inputs that go into the bias; NaN for other inputs."""
        values = np.stack([call.inputs[0].value for call in self.calls])
        same = (values == values[0]).all(axis=0)
        foldable = same & ((values[0] == 0) | (not self.reason))
        return np.where(foldable, values[0], np.nan)

    def values(self, call: Call) -> list[np.ndarray]:
        value = call.inputs[0].value
        if self.reason:
            value = np.where(value == 0, value, np.nan)
        live = self.reads[np.isnan(value)].any(axis=0)
        total = self._sum(value) + self.bias
        if not self.is_followed:
            return [np.full(len(total), np.nan)]
        return [np.where(live, np.nan, apply(self.activation, total))]

    def needed_outputs(self) -> np.ndarray:
        """Marks the outputs that any use of the layer needs."""
        needed = np.any([call.outputs[0].needed for call in self.calls], axis=0)
        return needed if self.is_followed else np.full(len(needed), needed.any())

    def needs(self, call: Call) -> list[np.ndarray]:
        read = self.reads[:, self.needed_outputs()].any(axis=1)
        return [read & np.isnan(self.folded())]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        call = self.calls[0]
        folded = self.folded()
        extra = self._sum(folded)
        # Outputs that nothing needs become zero, as they may read removed inputs.
        alive = {0: np.isnan(folded), 1: self.needed_outputs()}
        weights = weights_of(self.layer)
        if (extra * alive[1]).any():
            weights["bias"] = self.bias + extra
        for name, axes in self._all_axes.items():
            for side, axis in enumerate(axes):
                if axis is not None and name in weights:
                    array = np.moveaxis(weights[name], axis, -1)
                    # Depthwise kernels make several channels from each input.
                    times = array.shape[-1] // len(alive[side])
                    array = np.where(np.repeat(alive[side], times), array, 0)
                    weights[name] = np.moveaxis(array, -1, axis)
        weights = {name: self.cut(name, array, keep) for name, array in weights.items()}
        config = {self.units: int(keep(call.outputs[0]).sum())}
        if "bias" in weights:
            config["use_bias"] = True
        return config, weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        call = self.calls[0]
        kept = keep(call.inputs[0]), keep(call.outputs[0])
        for own, axis in zip(kept, self._all_axes[name], strict=True):
            if axis is not None:
                times = array.shape[axis] // len(own)
                array = np.compress(np.repeat(own, times), array, axis)
        return array

    @property
    def _all_axes(self) -> dict[str, tuple[int | None, int | None]]:
        return {**self.axes, "bias": (None, self.bias_axis)}

    def _sum(self, value: np.ndarray) -> np.ndarray:
        """Returns what the constants among the inputs add to the outputs."""
        rows = np.flatnonzero(np.nan_to_num(value))
        return value[rows] @ self.gains[rows].astype("float64")
