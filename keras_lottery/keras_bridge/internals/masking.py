"""Keras's masks of padding, which travel with tensors.

Everything here was seen on Keras 3.15.
"""

from typing import Any

from keras.src import backend


def has_padding_mask(tensor: Any) -> bool:
    """Whether a symbolic tensor has a mask of padding.

    `keras.src.backend.get_keras_mask`, seen on Keras 3.15. Without it, a block whose
    layers skip padding would be opened, and they would skip it no longer.
    """
    return backend.get_keras_mask(tensor) is not None
