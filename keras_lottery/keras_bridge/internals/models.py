"""How a model is compiled, and its loss.

Everything here was seen on Keras 3.15.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.patches import overridden


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """What a model was given to `compile`, by the names of the arguments.

    `Model._compile_config`, seen on Keras 3.15. The public `get_compile_config` gives
    them as text, of which Keras does not make a loss, metric or schedule of the user's
    own that is not registered: a masked copy could not be compiled.
    """
    return dict(model._compile_config.config)


def compute_loss(
    model: keras.Model,
    x: Any,
    y: Any,
    predicted: Any,
    weights: Any = None,
    training: bool = True,
) -> Any:
    """The compiled loss of a batch, as `fit` asks for it.

    `Model._compute_loss`, seen on Keras 3.15. The public `compute_loss` may be the
    user's own and take no `training`, in which case the model would not train.
    """
    return model._compute_loss(x, y, predicted, weights, training=training)


@contextlib.contextmanager
def without_penalties(model: keras.Model) -> Iterator[None]:
    """Inside, the loss of a call is without the penalties of regularisers.

    `Layer._get_regularization_losses` and `Layer._flatten_layers`, seen on Keras 3.15.
    To subtract the penalties again would lose the digits of a small loss. What layers
    add by `add_loss` stays: it is the whole loss of some models.
    """
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(overridden(model, "_get_regularization_losses", list))
        for layer in model._flatten_layers():
            if layer.activity_regularizer is not None:
                enter(overridden(layer, "activity_regularizer", None))
        yield


def restored_epoch(model: keras.Model) -> int | None:
    """The epoch that `BackupAndRestore` has put a model's training back to, if it did.

    `Trainer._initial_epoch`, seen on Keras 3.15. A callback has no public way to know
    whether another one, before or behind it in the list, has restored the model: what
    it knows of the epochs before would be missing without a word.
    """
    return getattr(model, "_initial_epoch", None)
