"""Pruning a snapshot, and pruning a model once."""

import dataclasses
import warnings
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.gradients import compiled_once, holding
from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_sparsity,
    get_state,
    set_masks,
)
from keras_lottery.masks import Masks
from keras_lottery.structured import (
    Units,
    filter_criteria,
    filter_masks,
    find_units,
    prune_filters,
    scores_of_filters,
)
from keras_lottery.tickets import Snapshot, criteria
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets.allocation import Allocation, Scores
from keras_lottery.tickets.allocation.counts import check_sparsity
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import UNITS, Granularity, check, grouped


def prune(
    model: keras.Model,
    sparsity: float,
    criterion: str | Criterion = "magnitude",
    allocation: str | Allocation | None = None,
    granularity: Granularity = "weight",
    data: tuple[Any, Any] | None = None,
    seed: int = 0,
    rounds: int | None = None,
) -> None:
    """Prunes a masked model, once and in place.

    Args:
        model: a masked model (of `mask_model`).
        sparsity: the share of its prunable weights to be zero afterwards; of filters,
            the share of those that can be pruned.
        criterion: what a weight is worth; a name of `criteria` or a function of a
            snapshot. The model's weights stand for the initial ones too. With
            `granularity="filter"`, a name of `prune_filters` will do as well.
        allocation: which layers the weights are taken from; a name of `allocation` or
            a function. By default `"global"`, and `"uniform"` for filters.
        granularity: what is pruned together: `"weight"`, each by itself; blocks of
            weights, `"block_1x4"` of LiteRT (four inputs of one output) or a pair
            (inputs, outputs); `"2:4"`, which keeps 2 of 4 inputs; as of
            `granularity.Grouped`. The sparsity comes as near as groups allow. Or
            `"filter"` and `"channel"`: whole units and filters, as of `prune_filters`,
            worth the mean score of the weights that make them, or that read them.
        data: training data (x, y), for the criteria that need them.
        seed: seed of the criteria that draw random numbers.
        rounds: in how many rounds of scoring and pruning; each prunes the same share
            of what the one before left. By default as many as the criterion has: 100
            for `"synflow"`, 1 for most.

    A layer that loses its last weights warns.

    Raises:
        ValueError: if the model is not masked, an argument is out of range, a score
            is not a number, or all of them are zero. The model is then unchanged.

    Example:

    >>> import keras_lottery as kl
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> model = kl.mask_model(model)
    >>> kl.prune(model, 0.9)
    >>> kl.get_masks(model).kept
    10
    """
    check(granularity)
    if name := filter_criterion(criterion, granularity):
        if rounds not in (None, 1):
            raise ValueError(
                f"criterion={name!r} prunes filters at once. Received: rounds={rounds}"
            )
        prune_filters(model, sparsity, name, allocation or "uniform", data, seed)
        return
    masks = masks_after(
        model, sparsity, criterion, allocation, granularity, data, seed, rounds
    )
    if granularity not in UNITS:
        before = get_masks(model)
        lost = [n for n, m in masks.items() if before[n].any() and not m.any()]
        if lost:
            warnings.warn(
                f"No weights are left of {lost} at sparsity={sparsity}. Where no other "
                "path leads by, the outputs are constant, and training cannot mend it. "
                "Choose a smaller sparsity, or an allocation with shares by layer, "
                "such as 'erk'.",
                stacklevel=2,
            )
        set_masks(model, masks)
        return
    # Biases and normalisations go with the weights.
    left = filters_left(model, granularity, masks)
    prune_filters(model, sparsity, lambda f: left[f.name], lambda *_: left)


prune_at_init = prune
"""`prune`, by the name that it has where the model is not trained yet."""


def masks_after(
    model: keras.Model,
    sparsity: float,
    criterion: str | Criterion = "magnitude",
    allocation: str | Allocation | None = None,
    granularity: Granularity = "weight",
    data: tuple[Any, Any] | None = None,
    seed: int = 0,
    rounds: int | None = None,
) -> Masks:
    """The masks that `prune` would set; it changes nothing. Arguments as of `prune`."""
    if name := filter_criterion(criterion, granularity):
        return filter_masks(model, sparsity, name, allocation or "uniform", data, seed)
    snapshot = _snapshot(model, get_state(model), data, seed)
    allocate = allocation_of(model, allocation, granularity)
    return prune_snapshot(snapshot, sparsity, criterion, allocate, rounds)[0]


def rehearse(
    model: keras.Model,
    sparsity: float,
    criterion: str | Criterion,
    allocation: str | Allocation | None,
    granularity: Granularity,
    data: tuple[Any, Any] | None,
    seed: int,
) -> None:
    """Prunes once as `prune` does, but changes nothing. Arguments as of `prune`.

    For a training that prunes later on: what cannot be pruned is known before.

    Raises:
        ValueError: if it cannot be pruned so.
    """
    state, masks = get_state(model), get_masks(model)
    # Training will have moved what is zero, which hides all behind it.
    still = [name for name in masks if not state[name].any()]
    moved = {name: masks[name].astype(state[name].dtype) for name in still}
    snapshot = _snapshot(model, {**state, **moved}, data, seed)
    try:
        if name := filter_criterion(criterion, granularity):
            how = allocation or "uniform", data, seed
            filter_masks(model, sparsity, name, *how)
        else:
            allocate = allocation_of(model, allocation, granularity)
            allocate(criteria.get(criterion)(snapshot), masks, sparsity)
    except Exception as error:
        parts = keras.tree.flatten(data) if data is not None else []
        shapes = [getattr(part, "shape", type(part)) for part in parts]
        raise ValueError(
            f"The model cannot be pruned to sparsity={sparsity} by "
            f"criterion={criterion!r} with `data` of shapes {shapes}: {error}"
        ) from error


def _snapshot(model: keras.Model, state: State, data: Any, seed: int) -> Snapshot:
    """A model that is not trained, or is pruned where it is."""
    rng = np.random.default_rng(seed)
    return Snapshot(get_masks(model), state, state, state, rng, model, data)


def allocation_of(
    model: keras.Model,
    allocation: str | Allocation | None,
    granularity: Granularity,
) -> Allocation:
    """The allocation of a masked model's groups. Arguments as of `prune`."""
    allocate = allocations.get(allocation or default_allocation(granularity))
    if granularity in UNITS:
        return find_units(model, allocate, str(granularity))
    return grouped(allocate, granularity)


def filter_criterion(
    criterion: str | Criterion, granularity: Granularity
) -> str | None:
    """The criterion's name, if it is one of whole filters."""
    named = isinstance(criterion, str) and criterion in filter_criteria.CRITERIA
    return str(criterion) if named and granularity == "filter" else None


def criterion_of(criterion: str | Criterion, granularity: Granularity) -> Criterion:
    """The criterion of weights, or one of whole filters made one of weights.

    Raises:
        ValueError: if the name is unknown, at that granularity.
    """
    name = filter_criterion(criterion, granularity)
    # "random" is both: the one of weights does.
    if name is None or name in criteria.CRITERIA:
        return criteria.get(criterion)
    return partial(_by_filter, name)


def _by_filter(name: str, snapshot: Snapshot) -> Scores:
    data = snapshot.training_data() if name == "activation" else None
    if snapshot.model is None:
        raise ValueError(
            f"criterion={name!r} follows the model from layer to layer, which it does "
            "not have while it trains. Received: mask_epochs='auto'. Give a number."
        )
    with holding(snapshot.model, snapshot.final):
        return scores_of_filters(snapshot.model, name, data, snapshot.rng)


def default_allocation(granularity: Granularity) -> str:
    """The allocation's name where none is asked for.

    >>> default_allocation("weight"), default_allocation("filter")
    ('global', 'uniform')
    """
    return "uniform" if granularity in UNITS else "global"


def sparsity_of(model: keras.Model, granularity: Granularity) -> float:
    """The sparsity of a masked model as `prune` counts it."""
    if granularity not in UNITS:
        return get_sparsity(model)
    return filters_left(model, granularity, get_masks(model)).sparsity


def filters_left(model: keras.Model, granularity: Granularity, masks: Masks) -> Masks:
    """Which of a masked model's filters and units masks leave, by layer."""
    units = find_units(model, allocations.get("uniform"), str(granularity))
    return units.alive(masks)


def prune_snapshot(
    snapshot: Snapshot,
    sparsity: float,
    criterion: str | Criterion = "magnitude",
    allocation: str | Allocation = "global",
    rounds: int | None = None,
) -> tuple[Masks, Scores]:
    """The masks that leave a snapshot's best weights. Arguments as of `prune`.

    After round k of n the density is d_0 (d_n / d_0)^(k / n).

    Returns:
        The masks, and the scores of the first round, which all weights are in.
    """
    score, allocate = criteria.get(criterion), allocations.get(allocation)
    check_sparsity(sparsity)
    if rounds is None:
        rounds = getattr(score, "rounds", 1)
    if rounds < 1:
        raise ValueError(f"Expected at least 1 round. Received: rounds={rounds}")
    masks = snapshot.masks
    counted = allocate.alive(masks) if isinstance(allocate, Units) else masks
    start, end = counted.density, 1 - sparsity
    if not 0 < end < start:
        rounds = 1  # The allocation says what is wrong, if something is.
    with compiled_once():
        scores = first = score(snapshot)
        if end < start:
            check_informed(criterion, scores)
        for k in range(1, rounds):
            masks = allocate(scores, masks, 1 - start * (end / start) ** (k / rounds))
            scores = score(_pruned(snapshot, masks))
    return allocate(scores, masks, sparsity), first


def check_informed(criterion: str | Criterion, scores: Scores) -> None:
    """Raises ValueError if all scores are zero: they would be ranked by position."""
    if scores and not any(np.any(score) for score in scores.values()):
        raise ValueError(
            "Expected scores that tell weights apart. Received: zeros alone, from "
            f"criterion={criterion!r}. All weights or all derivatives are zero, as "
            "behind a layer that is initialised with zeros. Initialise it otherwise, "
            "train before pruning, or choose another criterion, such as 'magnitude'."
        )


def _pruned(snapshot: Snapshot, masks: Masks) -> Snapshot:
    """As if it had been pruned before. Its model keeps its own masks and weights."""
    final = dict(snapshot.final)
    for name, mask in masks.items():
        final[name] = np.where(mask, final[name], 0)
    return dataclasses.replace(snapshot, masks=masks, final=final)
