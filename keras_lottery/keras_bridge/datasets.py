"""Data sets that make their own batches: `PyDataset` and `tf.data.Dataset`."""

from typing import Any

import keras
import numpy as np


def is_tf_dataset(x: Any) -> bool:
    """Whether `x` is a `tf.data.Dataset`; does not import TensorFlow."""
    return hasattr(x, "element_spec") and hasattr(x, "cardinality")


def is_dataset(x: Any) -> bool:
    """Whether `x` makes its own batches: a `PyDataset` or a `tf.data.Dataset`."""
    return isinstance(x, keras.utils.PyDataset) or is_tf_dataset(x)


def is_ragged(x: Any) -> bool:
    """Whether `x` is a tensor of examples that differ in their shapes.

    >>> is_ragged(np.ones(3))
    False
    """
    return hasattr(x, "row_splits") or bool(getattr(x, "is_nested", False))


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse tensor of any backend.

    >>> is_sparse(np.ones(3))
    False
    """
    of_torch = getattr(x, "is_sparse", False) or getattr(x, "is_sparse_csr", False)
    return hasattr(x, "dense_shape") or hasattr(x, "todense") or bool(of_torch)


def length_of(data: Any) -> int | None:
    """Returns the number of batches of a data set; None if unknown or infinite."""
    if not is_tf_dataset(data):
        return data.num_batches
    count = int(data.cardinality())
    return None if count < 0 else count


def read_whole(data: Any) -> tuple[Any, Any]:
    """Returns all inputs and targets of a data set as arrays.

    Raises:
        ValueError: if the data set has no known end, or its batches are not (x, y) of
            dense tensors.
    """
    batches = _batches(data)
    if not isinstance(batches[0], tuple | list) or len(batches[0]) not in (2, 3):
        raise ValueError(
            "Expected `data` of batches (x, y). Received: batches of type "
            f"{type(batches[0]).__name__}"
        )
    return _joined([tuple(batch[:2]) for batch in batches])


def read_inputs(data: Any) -> Any:
    """Returns all inputs of a data set whose batches are x or start with x, as arrays.

    Raises:
        ValueError: if the data set has no known end.
    """
    return _joined([b[0] if isinstance(b, tuple | list) else b for b in _batches(data)])


def _batches(data: Any) -> list[Any]:
    if not length_of(data):
        raise ValueError(
            "Expected `data` of a known length. Received: a data set of unknown, "
            "infinite or no length. Use `dataset.take(n)`."
        )
    indices = range(length_of(data) or 0)
    batches = list(data if is_tf_dataset(data) else (data[i] for i in indices))
    first = batches[0]
    for part in keras.tree.flatten(
        tuple(first)[:2] if isinstance(first, tuple | list) else first
    ):
        if is_ragged(part) or is_sparse(part):
            raise ValueError(
                "Expected `data` of batches of dense tensors. Received: batches with a "
                f"{type(part).__name__}. Map it: `dataset.map(lambda x, y: "
                "(x.to_tensor(), y))` pads a ragged one, `tf.sparse.to_dense` fills a "
                "sparse one."
            )
    return batches


def _joined(batches: list[Any]) -> Any:
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *batches
    )
