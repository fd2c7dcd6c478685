"""What the callbacks share."""

import inspect
import numbers
from typing import Any, Self

import keras

from keras_lottery.keras_bridge.layers import is_masked

NAMED = ("criterion", "allocation")


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
