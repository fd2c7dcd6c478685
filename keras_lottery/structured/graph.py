"""A model's channels: which are constant, needed, or only removable together.

A group consists of channels of different tensors that can only be removed together,
such as those that a residual connection adds up.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.graph import Use, run
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.structured.channels import Call, Channels, Tensor, width
from keras_lottery.structured.rules import Attention, Rule


class Graph:
    """A model as a list of calls, including those inside nested models.

    Args:
        model: a built Sequential or Functional model without masks.
        rule_for: makes the rule of a layer from the layer and one of its uses.
        has_dead: whether to find constants and channels that nothing needs; otherwise
            all channels count as needed, and none as constant.

    Attributes:
        calls: each use of a layer, in order.
        rules: the rule of each layer, by its `id`.
        entries: the input tensors of each nested model, by its `id`.
        inputs, outputs: the tensors that the model reads and returns.
        groups: the index of each channel's group.
    """

    def __init__(
        self,
        model: keras.Model,
        rule_for: Callable[[Any, Call], Rule],
        has_dead: bool = True,
    ) -> None:
        self.model = model
        self.calls: list[Call] = []
        self.rules: dict[int, Rule] = {}
        # A nested model's inputs have the same widths wherever it is used.
        self.entries: dict[int, list[Tensor]] = {}
        self._paths = {id(layer): path for path, layer in walk(model)}
        self._rule_for = rule_for
        self._channels = Channels()
        self._makers: dict[int, str] = {}
        self.inputs = [self._channels.new_tensor(width(x.shape)) for x in model.inputs]
        self.outputs = run(model, self.inputs, self._call, self._enter)
        for tensor in [*self.inputs, *self.outputs]:
            self._channels.fix(tensor)
        self.groups = self._channels.groups()
        if has_dead:
            self._propagate()
        else:
            for call in self.calls:
                for tensor in call.outputs:
                    tensor.needed[:] = True

    def name(self, operation: Any) -> str:
        """Returns the path of a layer in the model."""
        return self._paths.get(id(operation), operation.name)

    def place(self, call: Call) -> str:
        """Returns where a layer is used, as the names of the layers before it."""
        makers = [self._makers.get(id(tensor), "the inputs") for tensor in call.inputs]
        return f"behind {' and '.join(dict.fromkeys(makers))}"

    def blocks(self, groups: np.ndarray | None = None) -> list[str]:
        """Returns the layers whose input and output channels all stay, and why.

        Activations that make the model's outputs are left out, since these stay anyway.

        Args:
            groups: the groups of which the layers have channels; by default any.
        """
        last = {id(tensor) for tensor in self.outputs}
        return [
            f"{self.name(rule.layer)} ({type(rule.layer).__name__}, "
            f"{self.place(rule.calls[0])}): {rule.reason}"
            for rule in self.rules.values()
            if type(rule) in (Rule, Attention)
            and (groups is None or any(self.has(c, groups) for c in rule.calls))
            and not (
                isinstance(rule.layer, keras.layers.Activation | keras.layers.Softmax)
                and any(id(x) in last for call in rule.calls for x in call.outputs)
            )
        ]

    def has(self, call: Call, groups: np.ndarray) -> bool:
        """Whether a use of a layer reads or makes a channel of some groups."""
        tensors = [*call.inputs, *call.outputs]
        return any(np.isin(self.groups[x.atoms], groups).any() for x in tensors)

    def keep(self) -> np.ndarray:
        """Marks the groups that stay in the smaller model, by index."""
        keep = self.fixed_groups()
        tensors = [tensor for call in self.calls for tensor in call.outputs]
        for tensor in tensors:
            keep[self.groups[tensor.atoms[tensor.needed]]] = True
        # Keras does not support layers of width zero.
        for tensor in tensors:
            own = self.groups[tensor.atoms]
            if len(own) and not keep[own].any():
                keep[own[0]] = True
        return keep

    def fixed_groups(self) -> np.ndarray:
        """Marks the groups that must stay whatever their values, by index."""
        fixed = np.zeros(self.groups.max(initial=0) + 1, bool)
        fixed[self.groups[self._channels.fixed()]] = True
        return fixed

    def _enter(self, nested: keras.Model, inputs: list[Tensor]) -> None:
        first = self.entries.setdefault(id(nested), inputs)
        for one, other in zip(first, inputs, strict=True):
            self._channels.tie(one.atoms, other.atoms)

    def _call(self, use: Use, inputs: list[Tensor]) -> list[Tensor]:
        layer = use.layer
        call = Call(use, inputs, [])
        rule = self.rules[id(layer)] = self._rule(layer, call)
        rule.calls.append(call)
        self.calls.append(call)
        rule.link(call, self._channels)
        self._makers |= dict.fromkeys(map(id, call.outputs), self.name(layer))
        return call.outputs

    def _rule(self, layer: Any, call: Call) -> Rule:
        """Returns the rule of a layer's uses so far and of one more."""
        new, known = self._rule_for(layer, call), self.rules.get(id(layer))
        if known is None:
            return new
        if (type(new), new.reason) == (type(known), known.reason):
            return known
        # An axis may be that of the channels in one use, and not in the other.
        if type(known) is not Rule:
            for tensor in (x for c in known.calls for x in [*c.inputs, *c.outputs]):
                self._channels.fix(tensor)
        whole = Rule(layer, "it treats channels differently where it is used again")
        whole.calls = known.calls
        return whole

    def _propagate(self) -> None:
        """Finds all constants, then all channels that are needed."""
        for call in self.calls:
            rule = self.rules[id(call.layer)]
            for tensor, value in zip(call.outputs, rule.values(call), strict=True):
                tensor.value = value
        for tensor in self.outputs:
            tensor.needed[:] = True
        # A layer that is used twice may need another pass for its other use.
        growing = True
        while growing:
            growing = False
            for call in reversed(self.calls):
                needs = self.rules[id(call.layer)].needs(call)
                for tensor, need in zip(call.inputs, needs, strict=True):
                    growing |= bool((need & ~tensor.needed).any())
                    tensor.needed |= need
