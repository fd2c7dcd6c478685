"""The rules that every grouping follows."""

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import get_masks, get_state
from keras_lottery.masks import Masks
from keras_lottery.testing import example
from keras_lottery.testing.rules import copies, rule, same, shapes
from keras_lottery.tickets import grouping as groupings
from keras_lottery.tickets.allocation import Scores, Uniform, kept_after
from keras_lottery.tickets.grouping import Granularity, Grouped, Grouping, Kind

SPARSITIES = (0.2, 0.4)


def check_grouping(
    granularity: Granularity | Kind,
    within: int = 0,
    model: keras.Model | None = None,
) -> None:
    """Checks a grouping on a small network: dense, and with groups pruned before.

    - `fold` returns scores and masks with the same names and shapes; the masks are
      those of `left`. It does not change the scores, and those of pruned weights have
      no effect.
    - `unfold` of all groups changes nothing; `unfold` of some groups keeps no others;
      pruned weights stay pruned.
    - As many groups remain as a sparsity requires, and pruning again to the same
      sparsity changes nothing.
    - `rearrange` and `shuffle` keep as many groups in each layer, and as many weights
      if groups count by their weights. They keep no group that may not be kept.
    - `idle` names no masked weight, and none at all if nothing was pruned.
    - The same scores give the same masks.

    Args:
        granularity: a value of `granularity=`, or a `Kind`.
        within: by how many weights the result may miss the sparsity, if groups count by
            their weights.
        model: a masked model that has such groups; by default, one with a convolution
            and Dense layers.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_grouping("weight")
    >>> check_grouping("filter")
    >>> check_grouping("block_1x4")
    Traceback (most recent call last):
    AssertionError: Broken rule: at sparsity 0.2, 560 groups are left...
    """
    if model is None:
        model = example.snapshot().model
    dense = Masks.dense({n: mask.shape for n, mask in get_masks(model).items()})
    grouping = groupings.get(granularity).of(model, get_masks(model))
    rng = np.random.default_rng(0)
    masks = dense
    scores = {name: rng.random(mask.shape) for name, mask in dense.items()}
    for sparsity in SPARSITIES:
        _check_fold(grouping, scores, masks)
        made = _pruned(grouping, scores, masks, sparsity, within)
        _check_moves(grouping, scores, made, masks)
        _check_idle(grouping, masks, made, get_state(model))
        masks = made


def _check_fold(grouping: Grouping, scores: Scores, masks: Masks) -> None:
    before = copies(scores)
    groups = grouping.fold(scores, masks)
    rule(
        groups.masks == grouping.left(masks),
        "`fold` gives the masks that `left` gives",
        groups.masks,
    )
    rule(
        shapes(groups.scores) == shapes(groups.masks),
        f"scores of groups have the names and shapes {shapes(groups.masks)}",
        shapes(groups.scores),
    )
    rule(same(before, scores), "`fold` leaves the scores as they are", "others")
    rule(
        groups.unfold(groups.masks) == masks,
        "`unfold` of all groups changes nothing",
        "other masks",
    )


def _pruned(
    grouping: Grouping, scores: Scores, masks: Masks, sparsity: float, within: int
) -> Masks:
    allocate = Grouped(Uniform(), grouping)
    made = allocate(scores, masks, sparsity)
    keep, left = kept_after(grouping.left(masks), sparsity), grouping.left(made).kept
    rule(
        abs(left - keep) <= within,
        f"at sparsity {sparsity}, {keep} groups are left, or {within} more or less",
        left,
    )
    rule(_inside(made, masks), "what is pruned stays pruned", "revived weights")
    rule(
        allocate(scores, made, sparsity) == made,
        "the same sparsity again changes nothing",
        "other masks",
    )
    other = {n: np.where(masks[n], s, np.nan) for n, s in scores.items()}
    rule(
        allocate(other, masks, sparsity) == made,
        "the same scores give the same masks; those of pruned weights have no say",
        "other masks when those are NaN",
    )
    return made


def _check_moves(
    grouping: Grouping, scores: Scores, masks: Masks, alive: Masks
) -> None:
    for call, moved, where in (
        ("rearrange", grouping.rearrange(masks, scores, alive), alive),
        (
            "shuffle",
            grouping.shuffle(masks, np.random.default_rng(0)),
            Masks.dense({name: mask.shape for name, mask in masks.items()}),
        ),
    ):
        counts = [_counts(grouping.left(each)) for each in (masks, moved)]
        rule(
            counts[0] == counts[1],
            f"`{call}` keeps as many groups in each layer: {counts[0]}",
            counts[1],
        )
        rule(_inside(moved, where), f"`{call}` keeps none but those alive", "others")


def _check_idle(
    grouping: Grouping, before: Masks, after: Masks, state: dict[str, np.ndarray]
) -> None:
    idle = grouping.idle(before, after)
    others = {name: array.shape for name, array in state.items() if name not in before}
    rule(
        shapes(idle).items() <= others.items(),
        f"`idle` has entries of variables that have no masks: {others}",
        shapes(idle),
    )
    rule(
        not any(entries.any() for entries in grouping.idle(after, after).values()),
        "nothing is idle where nothing was pruned",
        "something",
    )


def _inside(masks: Masks, others: Masks) -> bool:
    return not any((masks[name] & ~others[name]).any() for name in masks)


def _counts(masks: Masks) -> dict[str, int]:
    return {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
