"""Pulls weights towards targets while `fit` trains them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.keras_bridge.gradient_change import GradientChange
from keras_lottery.keras_bridge.layers.state import read, reset_slots

MEMORY = 0.99
"""The decay at each step of the moving average of squared gradients."""


class Pull:
    """Adds rho (W - target) to the gradients that a model's optimizer receives.

    This is the gradient of rho/2 ||W - target||², as if that were part of the loss; the
    loss that Keras reports does not include it. If a `fit` raises, the next one removes
    the pull.

    Args:
        model: a compiled masked model, inside `fit`.
        holding: whether weights can be held at their values.
        curvature: whether to keep the mean squares of the loss's gradients.
    """

    def __init__(
        self, model: keras.Model, holding: bool = False, curvature: bool = False
    ) -> None:
        self._change = change = GradientChange(model, self._pulled)
        self._weights = change.weights
        self._targets = change.add_variables("target")
        self._free = change.add_variables("free") if holding else {}
        self._squares = change.add_variables("square") if curvature else {}
        for name in self._free:
            self._free[name].assign(np.ones(self._weights[name].shape))
        self._rho = change.add_number("rho")

    def aim(self, targets: Mapping[str, np.ndarray], rho: float) -> None:
        """Sets the targets, an array for each masked weight, and rho."""
        for name, variable in self._targets.items():
            # This copies, because JAX may train in the buffer that it receives.
            variable.assign(np.array(targets[name]))
        self._rho.assign(rho)

    def hold(self, held: Mapping[str, np.ndarray]) -> None:
        """Holds some weights at their values: no gradient, new or old, moves them.

        Updates without a gradient, such as weight decay, still apply to them.
        """
        for name, mask in held.items():
            self._free[name].assign(~mask)
        pairs = {name: (~mask, self._weights[name]) for name, mask in held.items()}
        reset_slots(pairs, self._change.optimizer)

    def curvature(self) -> dict[str, np.ndarray]:
        """The moving averages of the loss's squared gradients, by weight."""
        return {name: read(variable) for name, variable in self._squares.items()}

    def remove(self) -> None:
        """Restores the model and the optimizer to what they were before."""
        self._change.remove()

    def _pulled(self, grads: list[Any], variables: list[keras.Variable]) -> list[Any]:
        names = {id(weight): name for name, weight in self._weights.items()}
        scale = self._change.scale()
        return [
            gradient
            if gradient is None or id(variable) not in names
            else self._changed(gradient, variable, names[id(variable)], scale)
            for gradient, variable in zip(grads, variables, strict=True)
        ]

    def _changed(self, gradient: Any, weight: Any, name: str, scale: float) -> Any:
        if self._squares:
            mean = self._squares[name]
            square = ops.square(self._change.of_loss(gradient))
            mean.assign(MEMORY * mean + (1 - MEMORY) * square)
        distance = ops.subtract(weight, self._targets[name])
        pull = ops.multiply(ops.cast(self._rho * scale, distance.dtype), distance)
        return (gradient + pull) * self._free[name] if self._free else gradient + pull
