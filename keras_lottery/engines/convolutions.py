"""Tells whether a model has convolutions, on which the choice of an engine depends."""

import keras

from keras_lottery.keras_bridge.layers import walk


def convolves(model: keras.Model) -> bool:
    """Whether the model has convolutions, which are slow with XLA on CPUs.

    >>> convolves(keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)]))
    True
    """
    return any(hasattr(layer, "kernel_size") for _, layer in walk(model))
