"""Pruning a snapshot, and pruning a model once."""

from typing import Any

import keras
import numpy as np

from keras_lottery import allocation as allocations
from keras_lottery import criteria
from keras_lottery.allocation import Allocation
from keras_lottery.criteria import Criterion
from keras_lottery.granularity import Granularity, grouped
from keras_lottery.layers import get_masks, get_state, set_masks
from keras_lottery.masks import Masks
from keras_lottery.ticket import Snapshot


def prune(
    model: keras.Model,
    sparsity: float,
    criterion: str | Criterion = "magnitude",
    allocation: str | Allocation = "global",
    granularity: Granularity = "weight",
    data: tuple[Any, Any] | None = None,
    seed: int = 0,
) -> None:
    """Prunes a masked model, once and in place.

    Args:
        model: a masked model (of `mask_model`).
        sparsity: the share of its prunable weights to be zero afterwards.
        criterion: what a weight is worth; a name of `criteria` or a function of a
            snapshot. The model's weights stand for the initial ones too.
        allocation: which layers the weights are taken from; a name of `allocation` or
            a function.
        granularity: what is pruned together: `"weight"`, each by itself; blocks of
            weights, `"block_1x4"` of LiteRT (four inputs of one output) or a pair
            (inputs, outputs); `"2:4"`, which keeps 2 of 4 inputs; as of
            `granularity.Grouped`. The sparsity comes as near as groups allow.
        data: training data (x, y), for the criteria that need them.
        seed: seed of the criteria that draw random numbers.

    Raises:
        ValueError: if the model is not masked, an argument is out of range, or a score
            is not a number. The model is then unchanged.

    Example:

    >>> import keras_lottery as kl
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> model = kl.mask_model(model)
    >>> kl.prune(model, 0.9)
    >>> kl.get_masks(model).kept
    10
    """
    state = get_state(model)
    snapshot = Snapshot(
        masks=get_masks(model),
        final=state,
        initial=state,
        rewind_point=state,
        rng=np.random.default_rng(seed),
        model=model,
        data=data,
    )
    allocate = grouped(allocations.get(allocation), granularity)
    set_masks(model, prune_snapshot(snapshot, sparsity, criterion, allocate))


def prune_snapshot(
    snapshot: Snapshot,
    sparsity: float,
    criterion: str | Criterion = "magnitude",
    allocation: str | Allocation = "global",
) -> Masks:
    """The masks that leave a snapshot's best weights. Arguments as of `prune`."""
    scores = criteria.get(criterion)(snapshot)
    return allocations.get(allocation)(scores, snapshot.masks, sparsity)
