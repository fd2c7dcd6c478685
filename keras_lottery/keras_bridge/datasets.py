"""What makes its own batches: `PyDataset` and `tf.data.Dataset`."""

from typing import Any

import keras
import numpy as np


def is_tf_dataset(x: Any) -> bool:
    """Whether `x` is a `tf.data.Dataset`; TensorFlow is not imported for it."""
    return hasattr(x, "element_spec") and hasattr(x, "cardinality")


def is_dataset(x: Any) -> bool:
    """Whether `x` makes its own batches: a `PyDataset` or a `tf.data.Dataset`."""
    return isinstance(x, keras.utils.PyDataset) or is_tf_dataset(x)


def length_of(data: Any) -> int | None:
    """Batches of a data set, or None if that is not known or there is no end."""
    if not is_tf_dataset(data):
        return data.num_batches
    count = int(data.cardinality())
    return None if count < 0 else count


def read_whole(data: Any) -> tuple[Any, Any]:
    """All inputs and targets of a data set, as arrays.

    Raises:
        ValueError: if it has no known end, or its batches are not (x, y).
    """
    if not length_of(data):
        raise ValueError(
            "Expected `data` of a known length. Received: a data set of unknown, "
            "infinite or no length. Use `dataset.take(n)`."
        )
    indices = range(length_of(data) or 0)
    batches = list(data if is_tf_dataset(data) else (data[i] for i in indices))
    if not isinstance(batches[0], tuple | list) or len(batches[0]) not in (2, 3):
        raise ValueError(
            "Expected `data` of batches (x, y). Received: batches of type "
            f"{type(batches[0]).__name__}"
        )
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([np.asarray(part) for part in parts]),
        *(tuple(batch[:2]) for batch in batches),
    )
