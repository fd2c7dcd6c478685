"""Tells whether training is distributed over several devices."""

import keras

from keras_lottery.keras_bridge import backends


def is_distributed(model: keras.Model) -> bool:
    """Whether Keras trains the model on several devices."""
    spread = keras.distribution.distribution() is not None
    return spread or backends.current().is_distributed(model)
