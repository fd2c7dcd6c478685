"""Means over batches of a function of each batch's gradients."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.gradients import (
    Scalar,
    batch_gradients,
    in_batches,
    length,
    loss,
)
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores

# The number of batches, if there are enough examples, and their largest size.
BATCHES, LARGEST = 100, 32

Batches = Iterable[tuple[Any, Any]]


def batches(model: keras.Model, x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    """Yields data in small batches, of one example each if there are few examples."""
    return in_batches(model, x, y, min(max(length(x) // BATCHES, 1), LARGEST))


def mean_over_batches(
    snapshot: Snapshot,
    function: Callable[[np.ndarray], np.ndarray],
    batches: Batches,
    scalar: Scalar = loss,
) -> Scores:
    """Returns the mean over batches of a function of their gradients.

    Args:
        snapshot: the snapshot whose model is differentiated at the final weights.
        function: maps a gradient to an array of the same shape.
        batches: (x, y) of each batch; a batch is weighted by its number of examples.
        scalar: same as in `gradients`.
    """
    sums, total = {n: np.zeros(m.shape) for n, m in snapshot.masks.items()}, 0
    for count, found in batch_gradients(snapshot.model, batches, scalar):
        total += count
        for name in sums:
            sums[name] += count * function(found[name].astype("float64"))
    return {name: array / total for name, array in sums.items()}
