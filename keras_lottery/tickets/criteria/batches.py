"""Means over batches of what is made of their gradients."""

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

# So many batches, if there are as many examples, of so many examples at most.
BATCHES, LARGEST = 100, 32

Batches = Iterable[tuple[Any, Any]]


def batches(model: keras.Model, x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    """Data in small batches: of one example where there are few."""
    return in_batches(model, x, y, min(max(length(x) // BATCHES, 1), LARGEST))


def mean_over_batches(
    snapshot: Snapshot,
    function: Callable[[np.ndarray], np.ndarray],
    batches: Batches,
    scalar: Scalar = loss,
) -> Scores:
    """The mean of a function of the gradients of batches.

    Args:
        snapshot: what to differentiate, at its final weights.
        function: takes and returns an array of a weight's shape.
        batches: (x, y) of each; they count by their examples.
        scalar: same as in `gradients`.
    """
    sums, total = {n: np.zeros(m.shape) for n, m in snapshot.masks.items()}, 0
    for count, found in batch_gradients(snapshot.model, batches, scalar):
        total += count
        for name in sums:
            sums[name] += count * function(found[name].astype("float64"))
    return {name: array / total for name, array in sums.items()}
