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
from keras_lottery.keras_bridge.layers.state import read


class Pull:
    """Adds rho (W - target) to the gradients that a model's optimizer is given.

    That is the gradient of rho/2 ||W - target||², as if it were part of the loss; the
    loss that Keras reports stays the task's own. Targets and rho are variables of the
    optimizer as long as the pull lasts, so that a compiled step reads them anew, on JAX
    as well. Files do not get them. After a `fit` that raises, the next one removes
    them.

    Args:
        model: a compiled masked model, inside `fit`.
    """

    def __init__(self, model: keras.Model) -> None:
        outer = model.optimizer
        if not outer.built:
            outer.build(model.trainable_variables)
        self._change = GradientChange(model, self._pulled)
        self._optimizer = optimizer = self._change.optimizer
        trained = {id(variable) for variable in model.trainable_variables}
        self._targets = {
            name: (weight, optimizer.add_variable_from_reference(weight, "target"))
            for name, (_, weight) in named_masks(model).items()
            if id(weight) in trained
        }
        self._rho = optimizer.add_variable((), name="rho")
        for variable in self._own_variables():
            self._change.afterwards(forget_variable, optimizer, variable)
        for saved in {id(one): one for one in (outer, optimizer)}.values():
            self._change.override(saved, "save_own_variables", self._saving(saved))

    def aim(self, targets: Mapping[str, np.ndarray], rho: float) -> None:
        """Sets the targets, an array for each masked weight, and rho."""
        for name, (_, variable) in self._targets.items():
            # A copy, since JAX may train in the buffer it is given.
            variable.assign(np.array(targets[name]))
        self._rho.assign(rho)

    def remove(self) -> None:
        """Leaves model and optimizer as they were before."""
        self._change.remove()

    def _own_variables(self) -> list[keras.Variable]:
        return [*(variable for _, variable in self._targets.values()), self._rho]

    def _pulled(self, grads: list[Any], variables: list[keras.Variable]) -> list[Any]:
        targets = {id(weight): target for weight, target in self._targets.values()}
        # The optimizer divides by the one, and adds up over the other.
        replicas = backends.current().replicas()
        scale = (self._optimizer.loss_scale_factor or 1.0) / replicas
        return [
            gradient
            if gradient is None or id(variable) not in targets
            else gradient + self._gradient(variable, targets[id(variable)], scale)
            for gradient, variable in zip(grads, variables, strict=True)
        ]

    def _gradient(self, weight: Any, target: Any, scale: float) -> Any:
        distance = ops.subtract(weight, target)
        return ops.multiply(ops.cast(self._rho * scale, distance.dtype), distance)

    def _saving(self, optimizer: Any) -> Any:
        own = {id(variable) for variable in self._own_variables()}

        def save_own_variables(store: Any) -> None:
            others = [v for v in optimizer.variables if id(v) not in own]
            for i, variable in enumerate(others):
                store[str(i)] = read(variable)

        return save_own_variables
