"""Changing the gradients that a model's optimizer is given, during one `fit`."""

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
"""Gradients and their variables to other gradients."""


class GradientChange:
    """Lets a function change the gradients of a model before its optimizer has them.

    Overrides the optimizer's `apply` and the model's `make_train_function`, for Keras
    has no hook between the gradients and the update.

    A `fit` that raises cannot tell anyone: the next one then removes the change before
    it begins, if nothing else did.

    Args:
        model: a compiled model, inside `fit`.
        change: the function, called when a training step is traced.
        afterwards: called then, too, behind the optimizer's update.

    Attributes:
        optimizer: the optimizer whose gradients they are: the inner one, where losses
            are scaled.
        weights: the masked weights that are trained, by name.

    Raises:
        ValueError: if they are changed already.
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
        # What was traced before does not know of it.
        model.make_train_function(force=True)

    def override(self, thing: Any, name: str, function: Any) -> None:
        """Puts a function in the place of a method, until the change is removed."""
        self._undo.enter_context(overridden(thing, name, function))

    def add_variables(self, kind: str) -> dict[str, keras.Variable]:
        """Zeros like each of `weights`; a compiled step reads and assigns them.

        They are variables of the optimizer as long as the change lasts, on JAX as well.
        Files do not get them.
        """
        add = self.optimizer.add_variable_from_reference
        with backends.current().scope_of(self._model):
            new = {name: add(weight, kind) for name, weight in self.weights.items()}
        self._keep(*new.values())
        return new

    def add_number(self, name: str) -> keras.Variable:
        """One number, as `add_variables`."""
        with backends.current().scope_of(self._model):
            number = self.optimizer.add_variable((), name=name)
        self._keep(number)
        return number

    def scale(self) -> float:
        """What the gradients are of, as a multiple of the loss."""
        # The optimizer divides by the one, and adds up over the other.
        return self._factor() / backends.current().replicas()

    def of_loss(self, gradient: Any) -> Any:
        """The gradient of the loss of the whole batch, of all replicas."""
        return backends.current().summed(gradient) / self._factor()

    def _factor(self) -> float:
        return self.optimizer.loss_scale_factor or 1.0

    def remove(self) -> None:
        """Leaves model and optimizer as they were before."""
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
        # `fit` asks for it before its callbacks begin, and only then without force:
        # the `fit` of this change is over.
        if not force:
            self.remove()
        type(self._model).make_train_function(self._model, force=True)
