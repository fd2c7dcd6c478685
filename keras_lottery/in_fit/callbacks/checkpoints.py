"""A callback that keeps a model's states of several epochs."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import State, get_state


class Checkpoints(keras.callbacks.Callback):
    """Keeps the states of a model in memory while it is trained.

    Args:
        epochs: after which epochs to keep the state, with 0 for the state before the
            first; all by default.

    Attributes:
        states: mapping from the number of epochs trained to the state at that time.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> checkpoints = Checkpoints()
    >>> x = np.ones((4, 2))
    >>> _ = model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[checkpoints])
    >>> list(checkpoints.states)
    [0, 1, 2]
    """

    def __init__(self, epochs: Iterable[int] | None = None) -> None:
        super().__init__()
        self.epochs: set[int] | None = None
        if epochs is not None:
            form = "numbers of epochs, at least one: 0, 1, …"
            given = list(checks.instance("epochs", epochs, Iterable, form))
            if not given:
                checks.refuse("epochs", form, epochs)
            self.epochs = {checks.count("epochs", epoch) for epoch in given}
        self.states: dict[int, State] = {}

    def _keep(self, epoch: int) -> None:
        if self.epochs is None or epoch in self.epochs:
            self.states[epoch] = get_state(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keeps the state before the first epoch."""
        if not epoch:
            self._keep(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keeps the state after an epoch."""
        self._keep(epoch + 1)
