"""Weights pulled towards targets while `fit` trains them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.gradient_change import GradientChange
from keras_lottery.keras_bridge.internals.optimizers import forget_variable
from keras_lottery.keras_bridge.layers import named_masks
from keras_lottery.keras_bridge.layers.state import read, reset_slots

MEMORY = 0.99
"""How much of their mean square stays, at each step, when new gradients are added."""


class Pull:
    """Adds rho (W - target) to the gradients that a model's optimizer is given.

    That is the gradient of rho/2 ||W - target||², as if it were part of the loss; the
    loss that Keras reports stays the task's own. Targets and rho are variables of the
    optimizer as long as the pull lasts, so that a compiled step reads them anew, on JAX
    as well. Files do not get them. After a `fit` that raises, the next one removes
    them.

    Args:
        model: a compiled masked model, inside `fit`.
        holding: whether weights can be held where they are.
        curvature: whether it keeps the mean squares of the loss's gradients.
    """

    def __init__(
        self, model: keras.Model, holding: bool = False, curvature: bool = False
    ) -> None:
        outer = model.optimizer
        if not outer.built:
            outer.build(model.trainable_variables)
        self._change = GradientChange(model, self._pulled)
        self._optimizer = optimizer = self._change.optimizer
        trained = {id(variable) for variable in model.trainable_variables}
        self._weights = {
            name: weight
            for name, (_, weight) in named_masks(model).items()
            if id(weight) in trained
        }
        self._targets = self._variables("target")
        self._free = self._variables("free") if holding else {}
        self._squares = self._variables("square") if curvature else {}
        for name in self._free:
            self._free[name].assign(np.ones(self._weights[name].shape))
        self._rho = optimizer.add_variable((), name="rho")
        for variable in self._own_variables():
            self._change.afterwards(forget_variable, optimizer, variable)
        for saved in {id(one): one for one in (outer, optimizer)}.values():
            self._change.override(saved, "save_own_variables", self._saving(saved))

    def aim(self, targets: Mapping[str, np.ndarray], rho: float) -> None:
        """Sets the targets, an array for each masked weight, and rho."""
        for name, variable in self._targets.items():
            # A copy, since JAX may train in the buffer it is given.
            variable.assign(np.array(targets[name]))
        self._rho.assign(rho)

    def hold(self, held: Mapping[str, np.ndarray]) -> None:
        """Leaves some weights where they are, without this or earlier gradients.

        What the optimizer does without a gradient, as weight decay, it still does.
        """
        for name, mask in held.items():
            self._free[name].assign(~mask)
        pairs = {name: (~mask, self._weights[name]) for name, mask in held.items()}
        reset_slots(pairs, self._optimizer)

    def curvature(self) -> dict[str, np.ndarray]:
        """The mean squares of the loss's gradients of late, by weight."""
        return {name: read(variable) for name, variable in self._squares.items()}

    def remove(self) -> None:
        """Leaves model and optimizer as they were before."""
        self._change.remove()

    def _own_variables(self) -> list[keras.Variable]:
        kinds = self._targets, self._free, self._squares
        return [*(one for kind in kinds for one in kind.values()), self._rho]

    def _variables(self, kind: str) -> dict[str, keras.Variable]:
        add = self._optimizer.add_variable_from_reference
        return {name: add(weight, kind) for name, weight in self._weights.items()}

    def _pulled(self, grads: list[Any], variables: list[keras.Variable]) -> list[Any]:
        names = {id(weight): name for name, weight in self._weights.items()}
        # The optimizer divides by the one, and adds up over the other.
        replicas = backends.current().replicas()
        scale = (self._optimizer.loss_scale_factor or 1.0) / replicas
        return [
            gradient
            if gradient is None or id(variable) not in names
            else self._changed(gradient, variable, names[id(variable)], scale)
            for gradient, variable in zip(grads, variables, strict=True)
        ]

    def _changed(self, gradient: Any, weight: Any, name: str, scale: float) -> Any:
        if self._squares:
            mean = self._squares[name]
            square = ops.square(gradient / scale)
            mean.assign(MEMORY * mean + (1 - MEMORY) * square)
        distance = ops.subtract(weight, self._targets[name])
        pull = ops.multiply(ops.cast(self._rho * scale, distance.dtype), distance)
        return (gradient + pull) * self._free[name] if self._free else gradient + pull

    def _saving(self, optimizer: Any) -> Any:
        own = {id(variable) for variable in self._own_variables()}

        def save_own_variables(store: Any) -> None:
            others = [v for v in optimizer.variables if id(v) not in own]
            for i, variable in enumerate(others):
                store[str(i)] = read(variable)

        return save_own_variables
