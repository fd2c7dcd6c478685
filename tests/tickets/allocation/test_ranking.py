import tracemalloc

import numpy as np
import pytest

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Global

pytestmark = pytest.mark.once


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layers", [1, 10])
def test_pruning_takes_three_times_the_memory_of_the_scores(layers, tied):
    """Scores and masks, old and new, included. benchmarks/ranking.py has the time."""
    size = 4_000_000 // layers
    rng = np.random.default_rng(0)
    scores = {f"layer{i}": rng.random(size, "float32") for i in range(layers)}
    if tied:
        scores = {name: np.zeros(size, "float32") for name in scores}
    masks = Masks.dense({name: (size,) for name in scores})
    tracemalloc.start()
    try:
        Global()(scores, masks, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = sum(array.nbytes for array in (*scores.values(), *masks.values()))
    assert held + peak <= 3 * sum(score.nbytes for score in scores.values())
