"""The group lasso, by which whole groups of weights become zero while `fit` trains."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.common import Configured, InFit
from keras_lottery.keras_bridge.gradient_change import GradientChange
from keras_lottery.keras_bridge.layers import get_masks, get_state, set_masks
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.removal import check_followed
from keras_lottery.structured.rules import Linear, PerChannel, rule_for
from keras_lottery.tickets.allocation.names import check_patterns, matches

Groups = Literal["filter", "channel", "shape", "layer"]


@keras.saving.register_keras_serializable(package="keras_lottery")
class GroupLasso(Configured, InFit):
    """Adds the penalty λ Σ_g ‖w_g‖, by which groups of weights become exactly zero.

    After each step of the optimizer, the weights of a group are multiplied by
    max(0, 1 - η λ / ‖w_g‖), where η is the learning rate: the proximal step of the
    penalty. The loss that Keras reports does not include the penalty. When training
    ends, groups that are zero are masked; `compact` removes filters and channels, and
    fine-tuning without the callback restores the accuracy.

    The normalisation scales of these channels shrink by η λ as well; otherwise they
    would make up for the smaller kernels. Frozen layers and depthwise kernels have no
    penalty.

    Args:
        strength: λ, at least 0, or a λ for each layer by pattern of layer or weight
            name, `{"conv*": 0.005}`; the first match counts, and layers that match none
            have no penalty. Weight decay adds to the penalty.
        groups: `"filter"`, all weights of an output of a layer; `"channel"`, all
            weights of an input; `"shape"`, the weights at one position of a kernel for
            one input, over all outputs; `"layer"`, a whole kernel, for layers that a
            shortcut bypasses.
        growth: the share of the initial strength that is added to it every `frequency`
            steps: 0.5 gives 1.5 λ and then 2 λ. Steps are counted by the optimizer.
        frequency: the number of steps from one growth to the next.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or is a subclassed one, if a pattern matches no weight, or if
            another callback changes the gradients.

    Reference:
        Wen et al. 2016, "Learning structured sparsity in deep neural networks",
        equations 2 to 6; for `growth`, Wang et al. 2021, "Neural pruning via growing
        regularization".

    Example:

    >>> callback = GroupLasso({"conv*": 0.005}, groups="shape")
    >>> callback.get_config()
    {'strength': {'conv*': 0.005}, 'groups': 'shape', 'growth': 0.0, 'frequency': 100}
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        groups: Groups = "filter",
        growth: float = 0.0,
        frequency: int = 100,
    ) -> None:
        super().__init__()
        if isinstance(strength, Mapping):
            if not strength:
                checks.refuse("strength", "at least one pattern of layers", strength)
            for pattern, number in strength.items():
                checks.number(f"strength[{pattern!r}]", number, 0)
        else:
            checks.number("strength", strength, 0)
        checks.choice("groups", groups, get_args(Groups))
        checks.number("growth", growth, 0)
        checks.count("frequency", frequency, 1)
        self.strength = strength
        self.groups = groups
        self.growth = growth
        self.frequency = frequency
        self._change: GradientChange | None = None
        self._axes: dict[str, tuple[int, ...]] = {}
        self._scales: dict[str, keras.Variable] = {}
        self._strengths: dict[str, float] = {}

    def start(self) -> None:
        """Finds the groups, and shrinks them from the next step on."""
        check_followed(self.model)
        self._change = GradientChange(self.model, lambda grads, _: grads, self._shrink)
        self._find(self._change.weights)

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._change is not None:
            self._change.remove()
            self._change = None
            self._prune()

    def _find(self, weights: Mapping[str, keras.Variable]) -> None:
        """Finds the axes along which each group extends, and the scales that follow."""
        graph = Graph(self.model, rule_for)
        variables = named_variables(self.model)
        self._axes, self._scales = {}, {}
        behind: dict[int, str] = {}
        for rule in graph.rules.values():
            path = graph.name(rule.layer)
            if isinstance(rule, Linear):
                for name, (reads, makes) in rule.axes.items():
                    full = f"{path}/{name}"
                    if full not in weights or reads is None or makes is None:
                        continue
                    self._axes[full] = self._along(weights[full], reads, makes)
                    own = graph.groups[rule.calls[0].outputs[0].atoms]
                    behind |= dict.fromkeys(own.tolist(), full)
        if not self._axes:
            raise ValueError(
                "GroupLasso found no masked Dense layer or convolution to train. "
                f"Received: model '{self.model.name}'. See to `prunable=` of "
                "`mask_model` and to frozen layers."
            )
        if isinstance(self.strength, Mapping):
            check_patterns(self.strength, self._axes)
        self._strengths = {name: self._strength_of(name) for name in self._axes}
        if self.groups != "filter":
            return
        for rule in graph.rules.values():
            gamma = variables.get(f"{graph.name(rule.layer)}/gamma")
            if isinstance(rule, PerChannel) and gamma is not None and gamma.trainable:
                made = graph.groups[rule.calls[0].inputs[0].atoms]
                names = {behind.get(number, "") for number in made.tolist()}
                if len(names) == 1 and all(names):
                    self._scales.setdefault(names.pop(), gamma)

    def _along(self, weight: Any, reads: int, makes: int) -> tuple[int, ...]:
        axes = set(range(len(weight.shape)))
        one_of = {
            "filter": axes - {makes % len(axes)},
            "channel": axes - {reads % len(axes)},
            "shape": {makes % len(axes)},
            "layer": axes,
        }
        return tuple(sorted(one_of[self.groups]))

    def _strength_of(self, name: str) -> float:
        if not isinstance(self.strength, Mapping):
            return float(self.strength)
        found = (s for pattern, s in self.strength.items() if matches(name, pattern))
        return float(next(found, 0.0))

    def _shrink(self) -> None:
        """Takes the proximal step, after the optimizer's own step."""
        change = self._change
        assert change is not None
        rate = ops.cast(change.optimizer.learning_rate, "float32")
        # The optimizer has already counted the step that it did.
        grown = (change.optimizer.iterations - 1) // self.frequency
        rate = rate * (1 + self.growth * ops.cast(grown, "float32"))
        for name, axes in self._axes.items():
            if not self._strengths[name]:
                continue
            amount = rate * self._strengths[name]
            weight = change.weights[name]
            weight.assign(proximal(weight, axes, amount))
            if name in self._scales:
                self._scales[name].assign(proximal(self._scales[name], (), amount))

    def _prune(self) -> None:
        """Masks the groups that are zero."""
        masks, state = get_masks(self.model), get_state(self.model)
        new = {
            name: masks[name] & np.any(state[name] != 0, axis=axes, keepdims=True)
            for name, axes in self._axes.items()
        }
        lost = [n for n, mask in new.items() if masks[n].any() and not mask.any()]
        if lost:
            warnings.warn(
                f"GroupLasso(strength={self.strength}) has left no weights in {lost}. "
                "Unless another path bypasses these layers, the outputs are constant. "
                "Choose a smaller strength, or one for each layer.",
                stacklevel=2,
            )
        set_masks(self.model, {**masks, **new})


def proximal(weight: Any, axes: tuple[int, ...], amount: Any) -> Any:
    """The proximal step w max(0, 1 - amount / ‖w_g‖) for groups along some axes.

    Example:

    >>> weight = np.array([[3.0, 0.3], [4.0, 0.4]], "float32")
    >>> print(keras.ops.convert_to_numpy(proximal(weight, (0,), 1.0)).round(2))
    [[2.4 0. ]
     [3.2 0. ]]
    """
    weight = ops.convert_to_tensor(weight)
    square = ops.square(ops.cast(weight, "float32"))
    sums = ops.sum(square, axis=axes, keepdims=True) if axes else square
    norm = ops.maximum(ops.sqrt(sums), 1e-30)
    return weight * ops.cast(ops.maximum(0.0, 1.0 - amount / norm), weight.dtype)
