"""Numbers of weights to keep, which are whole and have an exact sum."""

import math
from collections.abc import Collection, Mapping

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.names import check_masks, check_scores
from keras_lottery.tickets.allocation.ranking import Scores, largest


def check_sparsity(sparsity: float, argument: str = "sparsity") -> None:
    """Raises ValueError unless the sparsity is in [0, 1)."""
    checks.fraction(argument, sparsity, remedy="It is the share of weights to prune.")


def kept_after(masks: Masks, sparsity: float) -> int:
    """Returns how many weights are left at a sparsity.

    Raises:
        ValueError: if the sparsity is not in [0, 1), or no weight would be left.
    """
    check_masks(masks)
    check_sparsity(sparsity)
    keep = round(masks.size * (1 - sparsity))
    if not keep:
        raise ValueError(
            f"No weight of {masks.size} would be left. Received: sparsity={sparsity}"
        )
    return keep


def check_count(keep: int, alive: int, sparsity: float, masks: Masks) -> None:
    """Raises ValueError unless `keep` of the `alive` weights can be kept."""
    if not 0 <= keep <= alive:
        raise ValueError(
            f"Expected a sparsity that leaves the pruned weights pruned. Received: "
            f"sparsity={sparsity:.4f}, with {masks.kept} of {masks.size} weights left "
            f"(sparsity {masks.sparsity:.4f}); {keep} of the {alive} weights that may "
            "be pruned would have to be left."
        )


def keep_among(names: Collection[str], masks: Masks, sparsity: float) -> int:
    """Returns how many weights the named layers keep if the others are not pruned.

    Raises:
        ValueError: if the named layers cannot reach the sparsity on their own.
    """
    alive = sum(int(np.count_nonzero(masks[name])) for name in names)
    keep = kept_after(masks, sparsity) - (masks.kept - alive)
    check_count(keep, alive, sparsity, masks)
    return keep


def keep_by_layer(
    scores: Scores, masks: Masks, keep: int, shares: Mapping[str, float]
) -> Masks:
    """Keeps the weights with the largest scores in each layer, about its share of them.

    Args:
        scores: arrays by name.
        masks: the weights that are left.
        keep: how many weights to keep in total.
        shares: how many weights to keep, by name, not rounded; they sum to about
            `keep`.

    Raises:
        ValueError: if fewer than `keep` weights are left, or the scores do not fit.
    """
    check_scores(scores, masks)
    checks.count("keep", keep)
    checks.instance("shares", shares, Mapping, "a share of `keep` by weight name")
    if shares.keys() != masks.keys():
        checks.refuse("shares", f"shares of {sorted(masks)}", sorted(shares))
    for share in shares.values():
        checks.number("shares", share, 0)
    check_count(keep, masks.kept, 1 - keep / masks.size, masks)
    alive = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    counts = largest_remainder(keep, shares, alive)
    kept: dict[str, np.ndarray] = {}
    for name, mask in masks.items():
        kept |= largest(scores, {name: mask}, counts[name])
    return Masks(kept)


def largest_remainder(
    total: int, shares: Mapping[str, float], most: Mapping[str, int]
) -> dict[str, int]:
    """Rounds shares to whole numbers that sum to `total`, none above its `most`.

    >>> largest_remainder(10, {"a": 3.3, "b": 6.7}, most={"a": 9, "b": 9})
    {'a': 3, 'b': 7}
    """
    # A share that is a whole number up to rounding errors counts as that number.
    counts = {
        name: min(most[name], math.floor(share + 1e-6))
        for name, share in shares.items()
    }
    order = sorted(shares, key=lambda name: counts[name] - shares[name])
    if total > sum(most[name] for name in shares):
        raise ValueError(f"Expected at most {dict(most)}. Received: total={total}")
    while sum(counts.values()) < total:
        for name in order:
            if sum(counts.values()) < total and counts[name] < most[name]:
                counts[name] += 1
    while sum(counts.values()) > total:
        for name in reversed(order):
            if sum(counts.values()) > total and counts[name]:
                counts[name] -= 1
    return counts
