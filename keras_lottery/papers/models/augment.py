"""What training does to the images of CIFAR-10."""

import keras
from keras import layers


def augmentation(seed: int | None = None) -> list[keras.layers.Layer]:
    """Layers that move images by up to an eighth and mirror half of them, in training.

    Args:
        seed: of what they draw; by default it differs at each call.

    Reference:
        He et al. 2016, section 4.2: a crop out of the image with 4 more pixels on each
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
