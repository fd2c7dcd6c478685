"""Weights pulled towards targets while `fit` trains them."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.layers import named_masks


class Pull:
    """Adds rho (W - target) to the gradients that a model's optimizer is given.

    That is the gradient of rho/2 ||W - target||², as if it were part of the loss; the
    loss that Keras reports stays the task's own. Targets and rho are variables of the
    optimizer as long as the pull lasts, so that a compiled step reads them anew, on JAX
    as well. Files do not get them.

    A `fit` that raises cannot tell anyone: the next one then removes the pull before it
    begins, if nothing else did.

    Args:
        model: a compiled masked model, inside `fit`.
    """

    def __init__(self, model: keras.Model) -> None:
        outer = model.optimizer
        optimizer = getattr(outer, "inner_optimizer", outer)
        if not outer.built:
            outer.build(model.trainable_variables)
        trained = {id(variable) for variable in model.trainable_variables}
        self._model = model
        self._optimizer = optimizer
        self._targets = {
            name: (weight, optimizer.add_variable_from_reference(weight, "target"))
            for name, (_, weight) in named_masks(model).items()
            if id(weight) in trained
        }
        self._rho = optimizer.add_variable((), name="rho")
        self._undo = contextlib.ExitStack()
        for variable in self._own_variables():
            self._undo.callback(optimizer._untrack_variable, variable)
        self._override(optimizer, "apply", self._apply)
        for saved in {id(one): one for one in (outer, optimizer)}.values():
            self._override(saved, "save_own_variables", self._saving(saved))
        self._override(model, "make_train_function", self._make_train_function)
        # What was traced before does not know of it.
        model.make_train_function(force=True)

    def aim(self, targets: Mapping[str, np.ndarray], rho: float) -> None:
        """Sets the targets, an array for each masked weight, and rho."""
        for name, (_, variable) in self._targets.items():
            # A copy, since JAX may train in the buffer it is given.
            variable.assign(np.array(targets[name]))
        self._rho.assign(rho)

    def remove(self) -> None:
        """Leaves model and optimizer as they were before."""
        self._undo.close()
        self._model.train_function = None

    def _own_variables(self) -> list[keras.Variable]:
        return [*(variable for _, variable in self._targets.values()), self._rho]

    def _override(self, thing: Any, name: str, function: Any) -> None:
        """Puts a function in the place of a method, until the pull is removed."""
        setattr(thing, name, function)
        self._undo.callback(delattr, thing, name)

    def _apply(self, grads: Any, trainable_variables: Any = None) -> None:
        optimizer = self._optimizer
        variables = trainable_variables or optimizer._trainable_variables
        targets = {id(weight): target for weight, target in self._targets.values()}
        # The optimizer divides by the one, and adds up over the other.
        scale = (optimizer.loss_scale_factor or 1.0) / _replicas()
        pulled = [
            gradient
            if gradient is None or id(variable) not in targets
            else gradient + self._gradient(variable, targets[id(variable)], scale)
            for gradient, variable in zip(grads, variables, strict=True)
        ]
        type(optimizer).apply(optimizer, pulled, trainable_variables)

    def _gradient(self, weight: Any, target: Any, scale: float) -> Any:
        distance = ops.subtract(weight, target)
        return ops.multiply(ops.cast(self._rho * scale, distance.dtype), distance)

    def _saving(self, optimizer: Any) -> Any:
        own = {id(variable) for variable in self._own_variables()}

        def save_own_variables(store: Any) -> None:
            others = [v for v in optimizer.variables if id(v) not in own]
            for i, variable in enumerate(others):
                store[str(i)] = variable.numpy()

        return save_own_variables

    def _make_train_function(self, force: bool = False) -> None:
        # `fit` asks for it before its callbacks begin, and only then without force:
        # the `fit` of this pull is over.
        if not force:
            self.remove()
        type(self._model).make_train_function(self._model, force=True)


def _replicas() -> int:
    """How many copies of the model TensorFlow adds the gradients of."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
