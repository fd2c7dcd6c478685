"""What the callbacks share."""

import inspect
import numbers
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_lottery.keras_bridge.layers import is_masked

NAMED = ("criterion", "allocation")


def at_last(callback: keras.callbacks.Callback, function: Callable[[], None]) -> None:
    """Calls a function when `fit` ends, after the callbacks behind this one as well.

    One of them may put back the weights of an earlier step, and their masks, as
    `EarlyStopping(restore_best_weights=True)` does.

    Args:
        callback: in its `on_train_end`.
        function: what is called.
    """
    history = getattr(callback.model, "history", None)
    # Keras has its own History behind the callbacks of the user. All callbacks of one
    # `fit` share their parameters.
    if history is None or history.params is not callback.params:
        function()
        return
    before = history.on_train_end

    def on_train_end(logs: dict | None = None) -> None:
        history.on_train_end = before
        before(logs)
        function()

    history.on_train_end = on_train_end


class Configured(keras.callbacks.Callback):
    """A callback that keeps its arguments in attributes of their names."""

    def get_config(self) -> dict[str, Any]:
        """The arguments, but for the data.

        Raises:
            ValueError: if the criterion or the allocation is not given by name.
        """
        names = inspect.signature(type(self)).parameters
        config = {name: getattr(self, name) for name in names if name != "data"}
        for argument in NAMED:
            if argument in config and not isinstance(config[argument], str):
                raise ValueError(
                    f"Only a `{argument}` given by name has a config. "
                    f"Received: {argument}={config[argument]!r}"
                )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The callback of a config, without data."""
        return cls(**config)


def check_masked(callback: keras.callbacks.Callback) -> None:
    """Raises ValueError unless the callback's model is masked."""
    if not is_masked(callback.model):
        raise ValueError(
            f"{type(callback).__name__} needs a masked model. Received: model "
            f"'{callback.model.name}'. Train what `mask_model(model)` returns."
        )


def whole(**arguments: Any) -> None:
    """Raises ValueError unless all arguments are whole numbers.

    >>> whole(end_step=50.5)
    Traceback (most recent call last):
    ...
    ValueError: Expected a whole number. Received: end_step=50.5. Round it.
    """
    for name, value in arguments.items():
        if not isinstance(value, numbers.Integral):
            raise ValueError(
                f"Expected a whole number. Received: {name}={value!r}. Round it."
            )


def steps_done(model: keras.Model) -> int:
    """How many steps the model's optimizer has made, as learning-rate schedules count.

    A step is a batch, also where gradients are accumulated.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # `iterations` would be the updates.
    return int(ops.convert_to_numpy(optimizer._iterations))
