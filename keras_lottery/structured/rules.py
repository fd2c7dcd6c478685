"""How layers treat channels: one class for each way of doing it."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.structured.activations import apply, is_elementwise
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

    def tie_calls(self, call: Call, channels: Channels) -> None:
        """Ties a shared layer's inputs, and its outputs, over its calls."""
        first = self.calls[0]
        if self.ties_calls and call is not first:
            before, now = first.inputs + first.outputs, call.inputs + call.outputs
            for one, other in zip(before, now, strict=True):
                channels.tie(one.atoms, other.atoms)


class PerChannel(Rule):
    """Each output channel depends on the input channel of its number alone.

    Args:
        layer: the layer.
        function: the outputs for constant inputs of shape (channels,); NaN where they
            are not constant.
        ignores: channels whose output is constant whatever the input.
        reason: why a constant does not stay one, for the report.
        config: the config's changes for a number of channels.
    """

    def __init__(
        self,
        layer: Any,
        function: Callable[[np.ndarray], np.ndarray] = lambda value: value,
        ignores: np.ndarray | bool = False,
        reason: str = "",
        config: Callable[[int], dict[str, Any]] = lambda channels: {},
    ) -> None:
        super().__init__(layer, reason)
        self.function = function
        self.ignores = ignores
        self.config = config
        self.ties_calls = bool(weights_of(layer)) or bool(config(1))

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
        return self.config(int(keep(self.calls[0].inputs[0]).sum())), weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        # All weights of such layers have their channels last; a slope of PReLU may be
        # one for all of them.
        kept = keep(self.calls[0].inputs[0])
        return array if array.shape[-1] == 1 else array[..., kept]


class Linear(Rule):
    """Each output channel is a weighted sum of the input channels, and a bias.

    Args:
        layer: the layer.
        gains: array (inputs, outputs): what an input that is 1 everywhere adds to an
            output, away from padding.
        reads: boolean array (inputs, outputs): whether the output depends on the input.
        units: the config's name for the number of outputs.
        axes: the axes (inputs, outputs) of each weight, `None` where it has none.
        padded: why constants other than zero do not stay constant; empty if they do.
    """

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
        """What each input adds to the bias from now on; NaN where it is read."""
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
        """Which outputs are needed in any place."""
        needed = np.any([call.outputs[0].needed for call in self.calls], axis=0)
        return needed if self.is_followed else np.full(len(needed), needed.any())

    def needs(self, call: Call) -> list[np.ndarray]:
        read = self.reads[:, self.needed_outputs()].any(axis=1)
        return [read & np.isnan(self.folded())]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        call = self.calls[0]
        folded = self.folded()
        extra = self._sum(folded)
        # What is needed nowhere is made zero: it may read what is removed.
        alive = {0: np.isnan(folded), 1: self.needed_outputs()}
        weights = weights_of(self.layer)
        uses_bias = "bias" in weights or bool((extra * alive[1]).any())
        if uses_bias:
            weights["bias"] = self.bias + extra
        for name, axes in {**self.axes, "bias": (None, 0)}.items():
            for side, axis in enumerate(axes):
                if axis is not None and name in weights:
                    array = np.moveaxis(weights[name], axis, -1)
                    # Depthwise kernels make several channels of each input.
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
        for own, axis in zip(kept, {**self.axes, "bias": (None, 0)}[name], strict=True):
            if axis is not None:
                times = array.shape[axis] // len(own)
                array = np.compress(np.repeat(own, times), array, axis)
        return array

    def _sum(self, value: np.ndarray) -> np.ndarray:
        """What the constants among the inputs add to the outputs."""
        rows = np.flatnonzero(np.nan_to_num(value))
        return value[rows] @ self.gains[rows].astype("float64")


class Lookup(Rule):
    """Channels that are looked up in a table, by numbers that are no channels."""

    def link(self, call: Call, channels: Channels) -> None:
        outputs = self.layer.output_dim
        new = channels.new_tensor(outputs) if call is self.calls[0] else None
        call.outputs.append(new or Tensor(self.calls[0].outputs[0].atoms))

    def values(self, call: Call) -> list[np.ndarray]:
        return [common(weights_of(self.layer)["embeddings"]).astype("float64")]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        table = self.cut("embeddings", weights_of(self.layer)["embeddings"], keep)
        return {"output_dim": table.shape[1]}, {"embeddings": table}

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        return array[:, keep(self.calls[0].outputs[0])]


class Depthwise(Rule):
    """Each input channel makes `multiplier` output channels of its own."""

    def __init__(self, layer: Any, padded: str) -> None:
        super().__init__(layer, padded)
        kernel = np.asarray(layer.kernel, "float64")
        positions = tuple(range(kernel.ndim - 2))
        self.multiplier = kernel.shape[-1]
        self.gains = kernel.sum(positions).ravel()
        self.reads = (kernel != 0).any(positions).ravel()
        self.bias = weights_of(layer).get("bias", np.zeros(len(self.gains)))

    def link(self, call: Call, channels: Channels) -> None:
        call.outputs.append(Tensor(self._repeat(call.inputs[0].atoms)))
        self.tie_calls(call, channels)

    def values(self, call: Call) -> list[np.ndarray]:
        value = self._repeat(call.inputs[0].value)
        known = ~self.reads | (value == 0 if self.reason else ~np.isnan(value))
        total = np.nan_to_num(value) * self.gains + self.bias
        return [np.where(known, apply(self.layer.activation, total), np.nan)]

    def needs(self, call: Call) -> list[np.ndarray]:
        return [self._any(call.outputs[0].needed & self.reads)]

    def stuck(self, call: Call) -> list[np.ndarray]:
        output = call.outputs[0]
        lost = self._repeat(call.inputs[0].constant) & ~output.constant & output.needed
        return [self._any(lost)]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        own = weights_of(self.layer)
        return {}, {name: self.cut(name, array, keep) for name, array in own.items()}

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        call = self.calls[0]
        if name == "bias":
            return array[keep(call.outputs[0])]
        return array[..., keep(call.inputs[0]), :]

    def _repeat(self, array: np.ndarray) -> np.ndarray:
        return np.repeat(array, self.multiplier)

    def _any(self, array: np.ndarray) -> np.ndarray:
        return np.any(array.reshape(-1, self.multiplier), axis=1)


class Merge(Rule):
    """Several tensors become one, channel by channel.

    Args:
        layer: the layer.
        function: constants of shape (inputs, channels), NaN where there is none, to
            the output's.
    """

    ties_calls = False

    def __init__(
        self, layer: Any, function: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(layer, "other channels are live there")
        self.function = function

    def link(self, call: Call, channels: Channels) -> None:
        call.outputs.append(Tensor(call.inputs[0].atoms))
        for other in call.inputs[1:]:
            channels.tie(call.inputs[0].atoms, other.atoms)

    def values(self, call: Call) -> list[np.ndarray]:
        return [self.function(np.stack([tensor.value for tensor in call.inputs]))]

    def needs(self, call: Call) -> list[np.ndarray]:
        return [call.outputs[0].needed.copy() for _ in call.inputs]

    def stuck(self, call: Call) -> list[np.ndarray]:
        lost = call.outputs[0].needed & ~call.outputs[0].constant
        return [lost & tensor.constant for tensor in call.inputs]


class Product(Merge):
    """A product: where one factor is zero, the others are not needed."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, product)

    def needs(self, call: Call) -> list[np.ndarray]:
        zero = np.stack([tensor.value == 0 for tensor in call.inputs])
        first = zero & (np.cumsum(zero, axis=0) == 1)
        return list(call.outputs[0].needed & (first | ~zero.any(axis=0)))


class Concatenation(Rule):
    """Several tensors side by side along the channel axis."""

    ties_calls = False

    def link(self, call: Call, channels: Channels) -> None:
        atoms = np.concatenate([tensor.atoms for tensor in call.inputs])
        call.outputs.append(Tensor(atoms))

    def values(self, call: Call) -> list[np.ndarray]:
        return [np.concatenate([tensor.value for tensor in call.inputs])]

    def needs(self, call: Call) -> list[np.ndarray]:
        ends = np.cumsum([tensor.width for tensor in call.inputs])[:-1]
        return np.split(call.outputs[0].needed, ends)

    def stuck(self, call: Call) -> list[np.ndarray]:
        return [np.zeros(tensor.width, bool) for tensor in call.inputs]


class Regrouping(Rule):
    """The same numbers in another shape, as of Flatten and Reshape.

    Args:
        layer: the layer.
        config: the config's changes for a number of output channels.
    """

    def __init__(
        self, layer: Any, config: Callable[[int], dict[str, Any]] = lambda channels: {}
    ) -> None:
        super().__init__(layer)
        self.config = config
        self.ties_calls = bool(config(1))

    def link(self, call: Call, channels: Channels) -> None:
        atoms = self._columns(call, call.inputs[0].atoms)
        call.outputs.append(Tensor(atoms[0]))
        channels.tie(np.broadcast_to(atoms[0], atoms.shape).ravel(), atoms.ravel())
        self.tie_calls(call, channels)

    def values(self, call: Call) -> list[np.ndarray]:
        return [common(self._columns(call, call.inputs[0].value))]

    def needs(self, call: Call) -> list[np.ndarray]:
        needed = np.broadcast_to(call.outputs[0].needed, call.output_shapes[0][1:])
        return [np.any(needed.reshape(-1, call.inputs[0].width), axis=0)]

    def stuck(self, call: Call) -> list[np.ndarray]:
        constant = self._columns(call, call.inputs[0].constant)
        lost = constant & call.outputs[0].needed & ~call.outputs[0].constant
        return [np.any(lost.reshape(-1, call.inputs[0].width), axis=0)]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        return self.config(int(keep(self.calls[0].outputs[0]).sum())), {}

    def _columns(self, call: Call, array: np.ndarray) -> np.ndarray:
        """What each position of an output channel holds: (positions, channels)."""
        whole = np.broadcast_to(array, call.input_shapes[0][1:])
        return whole.reshape(-1, call.output_shapes[0][-1] or 0)


def product(values: np.ndarray) -> np.ndarray:
    """The product along the first axis; zero if a factor is."""
    return np.where((values == 0).any(axis=0), 0.0, values.prod(axis=0))


def common(values: np.ndarray) -> np.ndarray:
    """The value that all along the first axis have, or NaN."""
    return np.where((values == values[0]).all(axis=0), values[0], np.nan)


def weights_of(layer: Any) -> Weights:
    """The arrays of a layer's own weights, by the attribute that holds them."""
    # A function of `keras.ops` is no layer.
    names = [weight.name for weight in getattr(layer, "weights", ())]
    return {
        name: np.asarray(ops.convert_to_numpy(getattr(layer, name))) for name in names
    }
