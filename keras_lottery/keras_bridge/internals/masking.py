"""Keras's padding masks, which are attached to tensors.

Everything here was seen on Keras 3.15.
"""

from typing import Any

from keras.src import backend


def padding_mask(tensor: Any) -> Any:
    """Returns the padding mask of a tensor, symbolic or not, or `None`.

    `keras.src.backend.get_keras_mask`, seen on Keras 3.15. Without it, `inline` would
    open a block whose layers skip padding, and they would no longer skip it; and
    `narrow` would count padding.
    """
    return backend.get_keras_mask(tensor)
