"""A model's compile arguments, and its loss.

Everything here was seen on Keras 3.15.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.patches import overridden


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments that a model was compiled with, by name.

    `Model._compile_config`, seen on Keras 3.15. The public `get_compile_config` returns
    them serialised, and Keras cannot restore a custom loss, metric or schedule that is
    not registered: a masked copy could not be compiled.
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
    """Returns the compiled loss of a batch, same as `fit` computes it.

    `Model._compute_loss`, seen on Keras 3.15. The public `compute_loss` may be a custom
    one without the argument `training`, and then the model would not train.
    """
    return model._compute_loss(x, y, predicted, weights, training=training)


@contextlib.contextmanager
def without_penalties(model: keras.Model) -> Iterator[None]:
    """Inside, the loss of a call excludes the penalties of regularisers.

    `Layer._get_regularization_losses` and `Layer._flatten_layers`, seen on Keras 3.15.
    Subtracting the penalties afterwards would lose digits of a small loss. Losses that
    layers add by `add_loss` stay: some models have no other loss.
    """
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(overridden(model, "_get_regularization_losses", list))
        for layer in model._flatten_layers():
            if layer.activity_regularizer is not None:
                enter(overridden(layer, "activity_regularizer", None))
        yield


def restored_epoch(model: keras.Model) -> int | None:
    """Returns the epoch from which `BackupAndRestore` continues a training, if it does.

    `Trainer._initial_epoch`, seen on Keras 3.15. A callback has no public way to know
    whether another callback has restored the model: its record of the epochs before
    would be missing silently.
    """
    return getattr(model, "_initial_epoch", None)
