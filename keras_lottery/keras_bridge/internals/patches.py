"""Temporary replacements of Keras's methods.

Everything here was seen on Keras 3.15.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def overridden(thing: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, an attribute or a method of one object is replaced.

    It bypasses `Layer.__setattr__`, as seen on Keras 3.15, which tracks the values that
    it sets.
    """
    own = vars(thing)
    before = {name: own[name]} if name in own else {}
    own[name] = value
    try:
        yield
    finally:
        del own[name]
        own.update(before)


class _Changed:
    """A `call` that changes its first argument and then computes as before."""

    def __init__(self, call: Callable[..., Any], change: Callable[[Any], Any]) -> None:
        self.call = call
        self.change = change

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return self.call(keras.tree.map_structure(self.change, inputs), *args, **kwargs)


def change_inputs(
    layer: keras.layers.Layer, change: Callable[[Any], Any] | None
) -> None:
    """Makes a layer change each tensor of its first argument before it computes.

    Overrides `call` of one layer, as seen on Keras 3.15: `TimeDistributed` calls it
    without `__call__`.

    Args:
        layer: the layer.
        change: the function of a tensor; `None` removes an earlier change.
    """
    own = vars(layer)
    if isinstance(own.get("call"), _Changed):
        del own["call"]
    if change is not None:
        own["call"] = _Changed(layer.call, change)


def at_last(callback: keras.callbacks.Callback, function: Callable[[], None]) -> None:
    """Calls a function when `fit` ends, after all of the user's callbacks.

    A callback behind this one may restore the weights of an earlier step, and their
    masks, as `EarlyStopping(restore_best_weights=True)` does.

    It overrides `on_train_end` of the History that `fit` puts behind the user's
    callbacks, as seen on Keras 3.15. A callback has no later hook of its own, and no
    access to the list that it is in.

    Args:
        callback: the callback that calls this in its `on_train_end`.
        function: the function to call.
    """
    history = getattr(callback.model, "history", None)
    # All callbacks of one `fit` share their parameters.
    if history is None or history.params is not callback.params:
        function()
        return
    patch = contextlib.ExitStack()

    def on_train_end(logs: dict | None = None) -> None:
        patch.close()
        history.on_train_end(logs)
        function()

    patch.enter_context(overridden(history, "on_train_end", on_train_end))
