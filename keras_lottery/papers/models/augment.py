"""Augmentation of the images of CIFAR-10."""

import keras
from keras import layers


def augmentation(seed: int | None = None) -> list[keras.layers.Layer]:
    """Layers that move images by up to an eighth and mirror half of them, in training.

    Args:
        seed: seed of the random numbers; by default it differs at each call.

    Reference:
        He et al. 2016, section 4.2: a crop of the image padded by 4 pixels on each
        side, and a horizontal flip.

    Example:

    >>> [layer.name for layer in augmentation()]
    ['move', 'mirror']
    """
    move = layers.RandomTranslation(
        1 / 8,
        1 / 8,
        fill_mode="constant",
        interpolation="nearest",
        seed=seed,
        name="move",
    )
    return [move, layers.RandomFlip("horizontal", seed=seed, name="mirror")]
