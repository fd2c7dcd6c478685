"""Keras's padding masks, which are attached to tensors.

Everything here was seen on Keras 3.15.
"""

from typing import Any

from keras.src import backend


def has_padding_mask(tensor: Any) -> bool:
    """Whether a symbolic tensor has a padding mask.

    `keras.src.backend.get_keras_mask`, seen on Keras 3.15. Without it, `inline` would
    open a block whose layers skip padding, and they would no longer skip it.
    """
    return backend.get_keras_mask(tensor) is not None
