"""Chooses exactly the k largest scores of many weights, in little memory."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_lottery import checks

Scores = Mapping[str, np.ndarray]

# Comparisons and positions are held in memory for this many weights at a time.
_BLOCK = 1 << 20


def largest(
    scores: Scores, alive: Mapping[str, np.ndarray], keep: int
) -> dict[str, np.ndarray]:
    """Marks the `keep` largest scores of the alive weights; ties go to the first.

    One partition finds the smallest score that is kept, and one pass marks the scores
    that are not below it. A copy of the scores of these weights and one mask are all
    the memory that this needs.

    Args:
        scores: arrays by name. The order of `alive`, then that of positions, decides
            which of equal scores is first.
        alive: booleans of the scores' shapes; weights that are not alive are never
            chosen.
        keep: how many weights to choose, at most as many as are alive.

    Returns:
        Booleans by name.

    Raises:
        ValueError: if the score of a weight that is alive is NaN.

    Example:

    >>> scores = {"a": np.array([1, 3]), "b": np.array([3, 3])}
    >>> alive = {"a": np.array([True, True]), "b": np.array([True, True])}
    >>> largest(scores, alive, 2)
    {'a': array([False,  True]), 'b': array([ True, False])}
    """
    for argument, arrays in (("scores", scores), ("alive", alive)):
        checks.instance(argument, arrays, Mapping, "arrays by name")
    if not alive.keys() <= scores.keys() or not alive:
        checks.refuse("alive", f"booleans for some of {sorted(scores)}", sorted(alive))
    most = sum(int(np.count_nonzero(living)) for living in alive.values())
    checks.count("keep", keep, 0, most)
    threshold, ties = _threshold(scores, alive, keep)
    chosen = {}
    for name, living in alive.items():
        chosen[name] = np.zeros(living.shape, bool)
        if not keep:
            continue
        blocks = _blocks(scores[name], living, chosen[name])
        for score, live, marks in blocks:
            np.greater(score, threshold, out=marks)
            marks &= live
            tied = score == threshold
            tied &= live
            count = int(np.count_nonzero(tied))
            if count > ties:
                tied[np.flatnonzero(tied)[ties:]] = False
            ties = max(0, ties - count)
            marks |= tied
    return chosen


def _threshold(
    scores: Scores, alive: Mapping[str, np.ndarray], keep: int
) -> tuple[Any, int]:
    """Returns the smallest score to keep, and how many weights with it to keep."""
    candidates = _candidates(scores, alive)
    if not keep:
        return None, 0
    first = len(candidates) - keep
    candidates.partition(first)
    threshold = candidates[first]
    above = sum(
        int(np.count_nonzero(candidates[start : start + _BLOCK] > threshold))
        for start in range(first, len(candidates), _BLOCK)
    )
    return threshold, keep - above


def _candidates(scores: Scores, alive: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the scores of the weights that are alive, one after the other."""
    counts = {name: int(np.count_nonzero(living)) for name, living in alive.items()}
    kind = np.result_type(*(np.asarray(scores[name]).dtype for name in alive))
    candidates = np.empty(sum(counts.values()), kind)
    end = 0
    for name, living in alive.items():
        start = end
        for score, live in _blocks(scores[name], living):
            part = score if live.all() else score[live]
            candidates[end : end + len(part)] = part
            end += len(part)
        # The maximum is NaN if any score is.
        if end > start and np.isnan(candidates[start:end].max()):
            raise ValueError(
                f"The scores of `{name}` hold NaN, which has no rank. Did the training "
                "diverge? Lower the learning rate."
            )
    return candidates


def _blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields views of arrays of one shape, one block of positions at a time."""
    flat = [np.ravel(np.asarray(array)) for array in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(array[start : start + _BLOCK] for array in flat)
