"""Pruning a snapshot: scores, masks, and repaired weights."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.calibration import matrices_of
from keras_lottery.keras_bridge.gradients import compiled_once
from keras_lottery.keras_bridge.layers import (
    State,
)
from keras_lottery.masks import Masks
from keras_lottery.tickets import Snapshot, criteria
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets.allocation import (
    Allocation,
    AllocationLike,
    ByOutput,
    Scores,
)
from keras_lottery.tickets.allocation.counts import check_sparsity
from keras_lottery.tickets.allocation.layerwise import (
    LayerSparsities,
    Sparsity,
)
from keras_lottery.tickets.allocation.names import included
from keras_lottery.tickets.criteria import Criterion, CriterionLike
from keras_lottery.tickets.grouping import Grouped, Weights, within
from keras_lottery.tickets.repair import Repair


def prune_snapshot(
    snapshot: Snapshot,
    sparsity: Sparsity,
    criterion: CriterionLike = "magnitude",
    allocation: AllocationLike = "global",
    rounds: int | None = None,
) -> tuple[Masks, Scores]:
    """Returns the masks of a pruned snapshot; see `prune` for the arguments.

    If the sparsity is a mapping from name patterns to layers' sparsities, it replaces
    the allocation. After round k of n the density is d_0 (d_n / d_0)^(k / n).

    Returns:
        The masks, and the scores of the first round, which include all weights.
    """
    if isinstance(sparsity, Mapping):
        left = snapshot.grouping.left(snapshot.masks)
        allocation = LayerSparsities.of(sparsity, left)
        sparsity = allocation.sparsity(left)
    score = criteria.get(criterion)
    allocate = Grouped(_ranking(snapshot, score, allocation), snapshot.grouping)
    check_sparsity(sparsity)
    rounds = checks.count("rounds", score.rounds if rounds is None else rounds, 1)
    masks = snapshot.masks
    start, end = snapshot.grouping.left(masks).density, 1 - sparsity
    if not 0 < end < start:
        rounds = 1  # The allocation raises an error if something is wrong.
    with compiled_once():
        scores = first = scored(score, snapshot, allocate)
        if end < start:
            check_informed(criterion, scores)
        for k in range(1, rounds):
            masks = allocate(scores, masks, 1 - start * (end / start) ** (k / rounds))
            scores = scored(score, _pruned(snapshot, masks), allocate)
    return allocate(scores, masks, sparsity), first


def _ranking(
    snapshot: Snapshot, score: Criterion, allocation: AllocationLike
) -> Allocation:
    """Returns the allocation, which ranks within outputs if the criterion says so."""
    allocate = allocations.get(allocation)
    across = snapshot.grouping.left(snapshot.masks).keys() != snapshot.masks.keys()
    # Without a model there are no inputs either, and the criterion raises an error.
    if not score.within_outputs or across or snapshot.shared_model is None:
        return allocate
    of = matrices_of(snapshot.shared_model, included(snapshot.masks, allocate.exclude))
    kinds = within(snapshot.grouping, snapshot.masks)
    outputs = {
        name: matrix.outputs
        for name, matrix in of.items()
        # Groups inside weights assume that the last axis is the outputs.
        if isinstance(kinds.get(name), Weights) or matrix.is_plain
    }
    return ByOutput(allocate, outputs)


def scored(score: Criterion, snapshot: Snapshot, allocation: Allocation) -> Scores:
    """Returns the scores of a snapshot; those of excluded weights are zero."""
    found = score(snapshot.leaving_out(allocation.exclude))
    if not allocation.exclude:
        return found
    masks = snapshot.masks
    if not found.keys() <= masks.keys():
        masks = snapshot.grouping.left(masks)
    zeros = {name: np.zeros(mask.shape, "float32") for name, mask in masks.items()}
    return {**zeros, **found}


def check_informed(criterion: CriterionLike, scores: Scores) -> None:
    """Raises ValueError if all scores are zero: they would be ranked by position."""
    if scores and not any(np.any(score) for score in scores.values()):
        raise ValueError(
            "Expected scores that distinguish the weights. Received: only zeros, from "
            f"criterion={criterion!r}. All weights or all derivatives are zero, as "
            "behind a layer that is initialised with zeros. Initialise it differently, "
            "train before pruning, or choose another criterion, such as 'magnitude'."
        )


def _pruned(snapshot: Snapshot, masks: Masks) -> Snapshot:
    """Returns the snapshot with these masks applied."""
    final = dict(snapshot.final)
    for name, mask in masks.items():
        final[name] = np.where(mask, final[name], 0)
    return dataclasses.replace(snapshot, masks=masks, final=final)


def repaired_snapshot(
    repair: Repair, snapshot: Snapshot, masks: Masks
) -> tuple[State, Masks]:
    """Returns the variables that a repair changes, checked, and its masks.

    Raises:
        ValueError: if the repair returns names or shapes that are not the model's, or
            numbers that are not finite.
    """
    changed, masks = repair.with_masks(snapshot, masks)
    checks.instance(
        "repair", changed, Mapping, "a function that returns arrays by name"
    )
    final = snapshot.final
    wrong = [
        name
        for name, array in changed.items()
        if name not in final
        or np.shape(array) != final[name].shape
        or not np.isfinite(np.asarray(array, "float64")).all()
    ]
    if wrong:
        raise ValueError(
            "Expected finite arrays of the names and shapes of the model's variables. "
            f"Received: others for {wrong} from repair={repair!r}"
        )
    pruned = {
        name: np.where(masks[name], array, 0) if name in masks else np.asarray(array)
        for name, array in changed.items()
    }
    return pruned, masks
