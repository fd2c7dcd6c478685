"""The rules that every criterion follows."""

from collections.abc import Mapping

import numpy as np

from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.testing import example
from keras_lottery.testing.rules import copies, rule, same, shapes
from keras_lottery.tickets import criteria
from keras_lottery.tickets.criteria import Criterion


def check_criterion(criterion: str | Criterion) -> None:
    """Checks a criterion on a small trained network of which a third is pruned.

    - It returns an array of numbers with the weight's shape for each name in
      `snapshot.masks`, and for no other.
    - The scores of remaining weights are not NaN.
    - The same snapshot gives the same scores: random numbers come from `snapshot.rng`.
    - It changes neither the snapshot's arrays nor its model.

    Args:
        criterion: a name, or a function of a snapshot.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_criterion("magnitude")
    >>> check_criterion(lambda snapshot: {})
    Traceback (most recent call last):
    AssertionError: Broken rule: a criterion scores the weights in `snapshot.masks`...
    """
    score = criteria.get(criterion)
    snapshot = example.snapshot()
    before = example.contents(snapshot)
    with seeded(1):
        scores = score(snapshot)
    rule(
        isinstance(scores, Mapping) and shapes(scores) == shapes(snapshot.masks),
        "a criterion scores the weights in `snapshot.masks`: arrays of the weights' "
        f"shapes by name, {shapes(snapshot.masks)}",
        shapes(scores) if isinstance(scores, Mapping) else repr(scores),
    )
    scores = copies(scores)
    for name, array in scores.items():
        numeric = np.issubdtype(array.dtype, np.number) or array.dtype == bool
        rule(numeric, "scores are numbers", f"type {array.dtype} for `{name}`")
        rule(
            not np.isnan(array[snapshot.masks[name]]).any(),
            "the score of a weight that is left is a number",
            f"NaN for `{name}`",
        )
    after = example.contents(snapshot)
    rule(
        same(before, after),
        "a criterion changes nothing",
        f"changed {[n for n in before if not np.array_equal(before[n], after[n])]}",
    )
    with seeded(2):
        again = copies(score(example.snapshot()))
    rule(
        same(scores, again),
        "the same snapshot has the same scores, and random numbers come from "
        "`snapshot.rng`",
        "other scores the second time",
    )
