"""Base classes and checks that the callbacks share."""

import inspect
from typing import Any, ClassVar, Self

import keras

from keras_lottery.keras_bridge.internals.models import restored_epoch
from keras_lottery.keras_bridge.layers import is_masked

NAMED = ("criterion", "allocation")


class InFit(keras.callbacks.Callback):
    """A callback that reads the model when the first epoch begins.

    In `on_train_begin`, the callbacks that come later in the list have not been called
    yet. One of them may restore the weights, masks and optimizer of an earlier
    training, as `BackupAndRestore` does. A subclass therefore reads the model in
    `start`.
    """

    not_in_backups: ClassVar[str] = ""
    """The callback's own state that backups lack and that it cannot resume without.

    If it is not empty, a training that `BackupAndRestore` restored is refused.
    """

    _started = False

    def start(self) -> None:
        """Is called once in each `fit`, after `on_train_begin` of all callbacks."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict | None = None) -> None:
        check_masked(self)
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start()

    def on_train_end(self, logs: dict | None = None) -> None:
        # If a restored training had already ended, there was no epoch to train.
        self._start()

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        epoch = restored_epoch(self.model)
        if epoch is not None and self.not_in_backups:
            raise ValueError(
                f"{type(self).__name__} keeps {self.not_in_backups}, which the files "
                "of `BackupAndRestore` do not hold: an interrupted training cannot "
                f"continue exactly. Received: a training restored at epoch {epoch}. "
                "Delete the backup, and train from the beginning."
            )
        self.start()


class Configured(keras.callbacks.Callback):
    """A callback that keeps each argument in an attribute of the same name."""

    def get_config(self) -> dict[str, Any]:
        """The arguments, except the data.

        Raises:
            ValueError: if the criterion or the allocation is not given by name.
        """
        names = inspect.signature(type(self)).parameters
        config = {name: getattr(self, name) for name in names if name != "data"}
        for argument in NAMED:
            if argument in config and not isinstance(config[argument], str | None):
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
