"""What the callbacks share."""

import keras
from keras import ops

from keras_lottery.layers import is_masked


def check_masked(callback: keras.callbacks.Callback) -> None:
    """Raises ValueError unless the callback's model is masked."""
    if not is_masked(callback.model):
        raise ValueError(
            f"{type(callback).__name__} needs a masked model. Received: model "
            f"'{callback.model.name}'. Train what `mask_model(model)` returns."
        )


def check_named(callback: keras.callbacks.Callback, *arguments: str) -> None:
    """Raises ValueError unless these arguments were given by name."""
    for argument in arguments:
        if not isinstance(getattr(callback, argument), str):
            raise ValueError(
                f"Only a `{argument}` given by name has a config. "
                f"Received: {argument}={getattr(callback, argument)!r}"
            )


def steps_done(model: keras.Model) -> int:
    """How many steps the model's optimizer has made. A step is a batch."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # `iterations` would leave out batches whose gradients are only accumulated.
    return int(ops.convert_to_numpy(optimizer._iterations))
