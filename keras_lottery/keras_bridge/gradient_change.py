"""Changing the gradients that a model's optimizer is given, during one `fit`."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.optimizers import innermost, trained_variables
from keras_lottery.keras_bridge.internals.patches import overridden

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

    Attributes:
        optimizer: the optimizer whose gradients they are: the inner one, where losses
            are scaled.

    Raises:
        ValueError: if they are changed already.
    """

    def __init__(self, model: keras.Model, change: Change) -> None:
        self.optimizer = innermost(model.optimizer)
        if "apply" in vars(self.optimizer):
            raise ValueError(
                "Another callback changes the gradients of this `fit` already. "
                "Received: two such, of ADMMPruning and SharedWeights. Pass one."
            )
        self._model = model
        self._change = change
        self._undo = contextlib.ExitStack()
        self.override(self.optimizer, "apply", self._apply)
        self.override(model, "make_train_function", self._make_train_function)
        # What was traced before does not know of it.
        model.make_train_function(force=True)

    def override(self, thing: Any, name: str, function: Any) -> None:
        """Puts a function in the place of a method, until the change is removed."""
        self._undo.enter_context(overridden(thing, name, function))

    def afterwards(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Has a function called when the change is removed."""
        self._undo.callback(function, *arguments)

    def remove(self) -> None:
        """Leaves model and optimizer as they were before."""
        self._undo.close()
        self._model.train_function = None

    def _apply(self, grads: Any, trainable_variables: Any = None) -> None:
        optimizer = self.optimizer
        variables = trainable_variables or trained_variables(optimizer)
        changed = self._change(list(grads), list(variables))
        type(optimizer).apply(optimizer, changed, trainable_variables)

    def _make_train_function(self, force: bool = False) -> None:
        # `fit` asks for it before its callbacks begin, and only then without force:
        # the `fit` of this change is over.
        if not force:
            self.remove()
        type(self._model).make_train_function(self._model, force=True)
