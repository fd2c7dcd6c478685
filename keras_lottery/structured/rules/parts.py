"""Rules of concatenating tensors along the channel axis, and of selecting channels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights


class Concatenation(Rule):
    """Several tensors are concatenated along the channel axis."""

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


class Parts(Rule):
    """Each output consists of some input channels, as in `split` and `x[..., :8]`.

    Args:
        layer: the function of `keras.ops`.
        parts: the indices of the input channels in each output.
        config: the config's changes, given which channels of each output stay.
        argument: the second argument of the call, given which input channels stay.
    """

    ties_calls = False

    def __init__(
        self,
        layer: Any,
        parts: Sequence[np.ndarray],
        config: Callable[[list[np.ndarray]], dict[str, Any]] | None = None,
        argument: Callable[[np.ndarray], Any] | None = None,
    ) -> None:
        super().__init__(layer)
        self.parts = parts
        self.config = config
        self.argument = argument

    def link(self, call: Call, channels: Channels) -> None:
        atoms = call.inputs[0].atoms
        call.outputs.extend(Tensor(atoms[part]) for part in self.parts)

    def values(self, call: Call) -> list[np.ndarray]:
        return [call.inputs[0].value[part] for part in self.parts]

    def needs(self, call: Call) -> list[np.ndarray]:
        need = np.zeros(call.inputs[0].width, bool)
        for part, tensor in zip(self.parts, call.outputs, strict=True):
            np.logical_or.at(need, part, tensor.needed)
        return [need]

    def stuck(self, call: Call) -> list[np.ndarray]:
        return [np.zeros(call.inputs[0].width, bool)]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        kept = [keep(tensor) for tensor in self.calls[0].outputs]
        return self.config(kept) if self.config else {}, {}

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], keep: Keep
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self.argument:
            return args, kwargs
        return (args[0], self.argument(keep(self.calls[0].inputs[0]))), {}
