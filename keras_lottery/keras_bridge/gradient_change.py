"""Changing the gradients that a model's optimizer receives, during one `fit`."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.internals.optimizers import (
    forget_variable,
    innermost,
    trained_variables,
)
from keras_lottery.keras_bridge.internals.patches import overridden
from keras_lottery.keras_bridge.layers import named_masks
from keras_lottery.keras_bridge.layers.state import read

Change = Callable[[list[Any], list[keras.Variable]], list[Any]]
"""Maps gradients and their variables to other gradients."""


class GradientChange:
    """Lets a function change a model's gradients before the optimizer receives them.

    It overrides the optimizer's `apply` and the model's `make_train_function`, because
    Keras has no hook between the gradients and the update.

    A `fit` that raises an error calls no callback at its end. The next `fit` then
    removes the change before it starts, if nothing else has removed it.

    Args:
        model: a compiled model, inside `fit`.
        change: the function, called when a training step is traced.
        afterwards: called when the step is traced as well, after the optimizer's
            update.

    Attributes:
        optimizer: the optimizer that receives the gradients: the inner one, if losses
            are scaled.
        weights: the trainable masked weights, by name.

    Raises:
        ValueError: if the gradients are changed already.
    """

    def __init__(
        self,
        model: keras.Model,
        change: Change,
        afterwards: Callable[[], None] = lambda: None,
    ) -> None:
        outer = model.optimizer
        if not outer.built:
            outer.build(model.trainable_variables)
        self.optimizer = innermost(outer)
        if "apply" in vars(self.optimizer):
            raise ValueError(
                "Another callback changes the gradients of this `fit` already. "
                "Received: two of ADMMPruning, GroupLasso, MovementPruning and "
                "SharedWeights. Pass only one."
            )
        trained = {id(variable) for variable in model.trainable_variables}
        self.weights = {
            name: weight
            for name, (_, weight) in named_masks(model).items()
            if id(weight) in trained
        }
        self._own: list[keras.Variable] = []
        self._model = model
        self._change, self._afterwards = change, afterwards
        self._undo = contextlib.ExitStack()
        self.override(self.optimizer, "apply", self._apply)
        self.override(model, "make_train_function", self._make_train_function)
        for saved in {id(one): one for one in (outer, self.optimizer)}.values():
            self.override(saved, "save_own_variables", self._saving(saved))
        # A step that was traced before does not include the change.
        model.make_train_function(force=True)

    def override(self, thing: Any, name: str, function: Any) -> None:
        """Replaces a method by a function until the change is removed."""
        self._undo.enter_context(overridden(thing, name, function))

    def add_variables(self, kind: str) -> dict[str, keras.Variable]:
        """Adds a variable of zeros for each of `weights`, for use in a compiled step.

        They are variables of the optimizer as long as the change lasts, so that a
        compiled step can read and assign them, on JAX as well. They are not saved in
        files.
        """
        add = self.optimizer.add_variable_from_reference
        with backends.current().scope_of(self._model):
            new = {name: add(weight, kind) for name, weight in self.weights.items()}
        self._keep(*new.values())
        return new

    def add_number(self, name: str) -> keras.Variable:
        """Adds a variable that holds one number, same as in `add_variables`."""
        with backends.current().scope_of(self._model):
            number = self.optimizer.add_variable((), name=name)
        self._keep(number)
        return number

    def scale(self) -> float:
        """Returns the factor of the loss in the gradients."""
        # The optimizer divides by the loss scale, and sums over the replicas.
        return self._factor() / backends.current().replicas()

    def of_loss(self, gradient: Any) -> Any:
        """Returns the gradient of the loss of the whole batch on all replicas."""
        return backends.current().summed(gradient) / self._factor()

    def _factor(self) -> float:
        return self.optimizer.loss_scale_factor or 1.0

    def remove(self) -> None:
        """Restores the model and the optimizer."""
        self._undo.close()
        self._model.train_function = None

    def _keep(self, *variables: keras.Variable) -> None:
        self._own.extend(variables)
        for variable in variables:
            self._undo.callback(forget_variable, self.optimizer, variable)

    def _saving(self, optimizer: Any) -> Any:
        def save_own_variables(store: Any) -> None:
            own = {id(variable) for variable in self._own}
            others = [v for v in optimizer.variables if id(v) not in own]
            for i, variable in enumerate(others):
                store[str(i)] = read(variable)

        return save_own_variables

    def _apply(self, grads: Any, trainable_variables: Any = None) -> None:
        optimizer = self.optimizer
        variables = trainable_variables or trained_variables(optimizer)
        changed = self._change(list(grads), list(variables))
        type(optimizer).apply(optimizer, changed, trainable_variables)
        self._afterwards()

    def _make_train_function(self, force: bool = False) -> None:
        # `fit` calls this before its callbacks start, and only then without `force`:
        # the `fit` of this change is over.
        if not force:
            self.remove()
        type(self._model).make_train_function(self._model, force=True)
