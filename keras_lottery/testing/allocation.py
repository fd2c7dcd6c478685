"""The rules that every allocation follows."""

import itertools

import numpy as np

from keras_lottery.masks import Masks
from keras_lottery.testing.example import SHAPES
from keras_lottery.testing.rules import copies, refuses, rule, same, shapes
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets.allocation import (
    Allocation,
    AllocationLike,
    Scores,
    kept_after,
)

SPARSITIES = (0.35, 0.6, 0.9)


def check_allocation(allocation: AllocationLike) -> None:
    """Checks an allocation on a small network: dense, pruned before, with equal scores.

    - It returns `Masks` with the names and shapes that it receives.
    - It keeps exactly `kept_after(masks, sparsity)` weights.
    - Pruned weights stay pruned, and their scores, even NaN, have no effect.
    - In each layer, the weights with the largest scores are kept; of equal scores, the
      first ones.
    - The same scores give the same masks, and are not changed.
    - NaN as the score of a remaining weight raises ValueError, and so does a sparsity
      below that of the masks.
    - `total_sparsity` is 0 at 0, increases, and can be reached.
    - Layers that are left out stay as they are: `leaving_out` either names them in
      `exclude`, or returns the allocation itself, which then takes care of that.

    The network has the weights `conv/kernel`, `dense/kernel` and `output/kernel`.

    Args:
        allocation: a name, or a function `(scores, masks, sparsity) -> masks`.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_allocation("global")
    >>> check_allocation(lambda scores, masks, sparsity: masks)
    Traceback (most recent call last):
    AssertionError: Broken rule: an allocation keeps 455 weights at sparsity 0.35...
    """
    allocate = allocations.get(allocation)
    rng = np.random.default_rng(0)
    dense = Masks.dense(SHAPES)
    pruned = Masks({n: rng.random(shape) < 0.7 for n, shape in SHAPES.items()})
    scores = {n: rng.random(shape) for n, shape in SHAPES.items()}
    tied = {n: rng.integers(0, 3, shape) for n, shape in SHAPES.items()}
    for masks in (dense, pruned):
        for sparsity in SPARSITIES:
            for given in (scores, tied):
                _check(allocate, given, masks, sparsity)
    _check_schedule(allocate, scores, dense)
    _check_left_out(allocate, scores, pruned)
    undefined = {name: np.full(shape, np.nan) for name, shape in SHAPES.items()}
    refuses(
        lambda: allocate(undefined, dense, 0.5),
        "an allocation raises ValueError for scores that are NaN",
    )
    refuses(
        lambda: allocate(scores, pruned, 0.1),
        "an allocation raises ValueError for a sparsity that would revive weights",
    )


def _check_schedule(allocate: Allocation, scores: Scores, masks: Masks) -> None:
    totals = [allocate.total_sparsity(s, masks) for s in (0.0, *SPARSITIES)]
    rule(
        totals[0] == 0 and all(a < b < 1 for a, b in itertools.pairwise(totals)),
        "`total_sparsity` is 0 at 0, and grows to less than 1",
        totals,
    )
    for total in totals:
        left = allocate(scores, masks, total).kept
        keep = kept_after(masks, total)
        rule(left == keep, f"a total sparsity of {total} can be had", f"{left} weights")


def _check_left_out(allocate: Allocation, scores: Scores, masks: Masks) -> None:
    other = allocate.leaving_out(["dense"])
    if other == allocate:
        return
    rule(
        list(other.exclude) == ["dense"],
        "`leaving_out` names in `exclude` what is left out",
        other.exclude,
    )
    made = other(scores, masks, 0.4)
    rule(
        np.array_equal(made["dense/kernel"], masks["dense/kernel"]),
        "what is left out stays as it is",
        "another mask of `dense/kernel`",
    )
    rule(
        made.kept == kept_after(masks, 0.4),
        "a sparsity counts what is left out, too",
        made.kept,
    )


def _check(allocate: Allocation, scores: Scores, masks: Masks, sparsity: float) -> None:
    before = copies(scores)
    made = allocate(scores, masks, sparsity)
    rule(
        isinstance(made, Masks) and shapes(made) == shapes(masks),
        f"an allocation makes `Masks` of these names and shapes: {shapes(masks)}",
        made,
    )
    keep = kept_after(masks, sparsity)
    rule(
        made.kept == keep,
        f"an allocation keeps {keep} weights at sparsity {sparsity}",
        made.kept,
    )
    rule(same(before, scores), "an allocation leaves the scores as they are", "others")
    for name, mask in made.items():
        alive = masks[name]
        rule(
            not (mask & ~alive).any(),
            "what is pruned stays pruned",
            f"revived weights of `{name}`",
        )
        order = np.argsort(-scores[name][alive], kind="stable")
        first = np.zeros(order.size, bool)
        first[order[: np.count_nonzero(mask)]] = True
        rule(
            np.array_equal(mask[alive], first),
            "in each layer the largest scores are kept; of equals, the first",
            f"others of `{name}`",
        )
    rule(
        allocate(scores, masks, sparsity) == made,
        "the same scores give the same masks",
        "other masks the second time",
    )
    other = {n: np.where(masks[n], s, np.nan) for n, s in scores.items()}
    rule(
        allocate(other, masks, sparsity) == made,
        "the scores of pruned weights have no say",
        "other masks when they are NaN",
    )
