"""Pruning a model once, in place or as a rehearsal."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.gradients import keeping
from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    set_masks,
)
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.keras_bridge.layers.state import reset_slots, trained_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning.arguments import chosen, of_network, repairer
from keras_lottery.pruning.snapshot import prune_snapshot, repaired_snapshot, scored
from keras_lottery.pruning.warn import warn_of_thin_layers, warn_of_wrappers
from keras_lottery.tickets import Snapshot, grouping
from keras_lottery.tickets.allocation import Allocation, AllocationLike
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.criteria import Criterion, CriterionLike
from keras_lottery.tickets.grouping import Granularity, Grouped
from keras_lottery.tickets.repair import RepairLike


def prune(
    model: keras.Model,
    sparsity: Sparsity,
    criterion: CriterionLike = "magnitude",
    allocation: AllocationLike | None = None,
    granularity: Granularity = "weight",
    data: Any = None,
    seed: int = 0,
    rounds: int | None = None,
    optimizer: Any = None,
    frozen: bool = True,
    repair: RepairLike | None = None,
) -> None:
    """Prunes a masked model once, in place.

    Filters and units that a residual connection adds up, or that are tied in another
    way, are pruned together and count once. The masks remove the weights that make a
    pruned filter and those that read it. Its bias, and the scale and offset of its
    normalisation, become zero; they stay zero in training, since nothing reads the
    filter and their gradients are exactly zero. Filters that the model returns, or that
    a layer without a rule reads, are kept. `compact(model)` then makes a smaller model.

    A warning names layers that fall below 1 % of their weights or lose their last
    weight, and wrappers that return NaN because they divide by the norm of an output's
    weights, all of which were pruned.

    Args:
        model: a masked model, as `mask_model` returns it.
        sparsity: the share of the prunable weights that are zero afterwards. For
            filters and units, it is the share of the prunable ones that are pruned;
            each layer keeps at least one. A mapping from patterns of layer or weight
            names to shares sets the sparsity of each layer,
            `{"conv*": 0.5, "dense*": 0.8}`: the first match counts, and layers that
            match no pattern, or are sparser already, stay as they are.
        criterion: how weights are scored: a name of `criteria` or a function of a
            snapshot. The model's weights serve as the initial ones too. With
            `granularity="filter"`, how filters are scored:

            - `"l1"`: the sum of the filter's absolute weights;
            - `"fpgm"`: its distance from the other filters of the layer;
            - `"bn_scale"`: the scale of its BatchNormalization;
            - `"activation"`: its mean absolute activation over `data`;
            - `"hrank"`: the mean rank of its feature maps;
            - `"entropy"`: the entropy of their means over `data`;
            - `"lasso"`: how early the lasso of the next layers' outputs selects it;
            - `"greedy_forward"`, `"greedy_imitation"`: how early a greedy selection
              adds it to an average of few filters, to lower the loss or to imitate the
              next layers' outputs;
            - `"random"`, or a criterion made by `of_filters`.

            The scores of `"l1"` and `"fpgm"` grow with the number of the layer's
            inputs, so they cannot be compared between layers.
        allocation: how sparse each layer becomes: a name of `allocation` or a function.
            By default `"global"`, and `"uniform"` for filters and for criteria whose
            scores are not comparable between layers, such as `"wanda"`. For filters,
            patterns match layers, and tied layers are called `conv_1+conv_3`. It must
            be omitted if `sparsity` is given for each layer.
        granularity: what is pruned together, see `grouping.get`: `"weight"` for single
            weights; `"block_1x4"` (four inputs of one output, as in LiteRT) or a pair
            (inputs, outputs) for blocks; `"2:4"`, which keeps 2 of 4 inputs. The
            sparsity is then as close as the groups allow. `"filter"` and `"channel"`
            prune whole units and filters by the mean score of the weights that make
            them, or that read them; `"head"` prunes whole attention heads. Groups
            within weights may differ by pattern of layer or weight name:
            `{"conv*": "2:4", "dense*": "weight"}`.
        data: training data, for the criteria that need them: (x, y) as arrays, tables,
            or dictionaries of these by input name, or a batched `tf.data.Dataset` or
            `PyDataset`, which is read whole. `"activation"`, `"lasso"`,
            `"greedy_imitation"`, `"wanda"`, `"ria"`, `"sparsegpt"`, `"admm"` and most
            repairs need no targets: a few hundred inputs x are enough.
        seed: seed for criteria that draw random numbers.
        rounds: the number of rounds of scoring and pruning; each prunes the same share
            of the weights that the previous one left. The default depends on the
            criterion: 100 for `"synflow"`, 1 for most.
        optimizer: the optimizer that trains the model, if it is not `model.optimizer`.
        frozen: whether masked weights of frozen layers are pruned too. If not, they and
            their masks stay as they are, and the sparsity refers to the other weights.
        repair: how the remaining weights are changed so that the outputs of layers stay
            as close as possible to what they were: `"least_squares"`, `"sparsegpt"`,
            `"admm"`, for filters `"greedy_forward"` and `"greedy_imitation"`, or a
            function, see `kl.repair`. By default weights stay as they are, except for
            the criteria of these names: `"sparsegpt"` and `"admm"` alternate between
            choosing and repairing, and the greedy ones make averages of filters.

    Raises:
        ValueError: if the model is not masked, an argument is out of range, a score is
            not a number, or all scores are zero; for filters, also if the model is
            subclassed, or a layer that reads a filter to be pruned is not masked. The
            model is then unchanged.

    Example:

    >>> import keras_lottery as kl
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> model = kl.mask_model(model)
    >>> kl.prune(model, 0.9)
    >>> kl.get_masks(model).kept
    10
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> kl.prune(model, 0.9, "l1", granularity="filter")
    >>> [layer.units for layer in kl.compact(model).layers if hasattr(layer, "units")]
    [30, 10, 10]
    """
    snapshot = _snapshot(model, granularity, data, seed, frozen)
    how = _resolved(snapshot, sparsity, criterion, allocation, granularity)
    mend = repairer(repair, how.criterion)
    with keeping(model):
        masks, _ = prune_snapshot(snapshot, *how, rounds)
        repaired: State = {}
        if mend is not None:
            repaired, masks = repaired_snapshot(mend, snapshot, masks)
    before, left = snapshot.masks, snapshot.grouping.left
    warn_of_thin_layers(left(before), left(masks), how.sparsity)
    set_masks(model, {**snapshot.others, **masks}, optimizer)
    variables = named_variables(model)
    for name, array in repaired.items():
        # No optimizer step follows that would apply the constraint.
        own = variables[name].constraint
        variables[name].assign(array if own is None else own(array))
    _zero(model, snapshot.grouping.idle(before, masks), optimizer)
    warn_of_wrappers(model, before, masks)


def masks_after(
    model: keras.Model,
    sparsity: Sparsity,
    criterion: CriterionLike = "magnitude",
    allocation: AllocationLike | None = None,
    granularity: Granularity = "weight",
    data: Any = None,
    seed: int = 0,
    rounds: int | None = None,
    frozen: bool = True,
) -> Masks:
    """Returns the masks that `prune` would set with these arguments; changes nothing.

    For `"sparsegpt"` and `"admm"` these are the masks that their repair starts from.
    """
    snapshot = _snapshot(model, granularity, data, seed, frozen)
    how = _resolved(snapshot, sparsity, criterion, allocation, granularity)
    with keeping(model):
        masks, _ = prune_snapshot(snapshot, *how, rounds)
    return Masks({**snapshot.others, **masks})


def rehearse(
    model: keras.Model,
    sparsity: float,
    criterion: CriterionLike,
    allocation: AllocationLike | None,
    granularity: Granularity,
    data: Any,
    seed: int,
    frozen: bool = True,
) -> None:
    """Prunes once as `prune` does with the same arguments, but changes nothing.

    A training that prunes later calls it first, so that an error is raised before
    training starts.

    Raises:
        ValueError: if the model cannot be pruned with these arguments.
    """
    snapshot = _snapshot(model, granularity, data, seed, frozen)
    score, allocate = chosen(criterion, allocation, granularity)
    # A weight of zeros hides all layers behind it; training will change it.
    moved = {
        name: mask.astype(snapshot.final[name].dtype)
        for name, mask in snapshot.masks.items()
        if not snapshot.final[name].any()
    }
    snapshot = dataclasses.replace(snapshot, final={**snapshot.final, **moved})
    try:
        with keeping(model):
            scores = scored(score, snapshot, allocate)
        Grouped(allocate, snapshot.grouping)(scores, snapshot.masks, sparsity)
    except Exception as error:
        parts = keras.tree.flatten(data) if data is not None else []
        shapes = [getattr(part, "shape", type(part)) for part in parts]
        raise ValueError(
            f"The model cannot be pruned to sparsity={sparsity} by "
            f"criterion={criterion!r} with `data` of shapes {shapes}: {error}"
        ) from error


class _Resolved(NamedTuple):
    sparsity: float
    criterion: Criterion
    allocation: Allocation


def _resolved(
    snapshot: Snapshot,
    sparsity: Sparsity,
    criterion: CriterionLike,
    allocation: AllocationLike | None,
    granularity: Granularity,
) -> _Resolved:
    """Interprets the arguments of `prune` for the whole network of a snapshot."""
    masks = snapshot.grouping.left(snapshot.masks)
    overall, allocation = of_network(sparsity, allocation, masks)
    return _Resolved(overall, *chosen(criterion, allocation, granularity))


def _snapshot(
    model: keras.Model, granularity: Granularity, data: Any, seed: int, frozen: bool
) -> Snapshot:
    """Returns a snapshot of a model as it is now, with no training before."""
    checks.seed("seed", seed)
    checks.flag("frozen", frozen)
    every = get_masks(model)
    masks = every if frozen else trained_masks(model)
    return Snapshot.untrained(
        masks,
        get_state(model),
        rng=np.random.default_rng(seed),
        shared_model=model,
        data=data,
        grouping=grouping.get(granularity).of(model, masks),
        others=Masks({n: mask for n, mask in every.items() if n not in masks}),
    )


def _zero(model: keras.Model, idle: Mapping[str, np.ndarray], optimizer: Any) -> None:
    """Zeroes entries of variables, and resets the optimizer's slots for them."""
    variables = named_variables(model)
    pairs = {}
    for name, entries in idle.items():
        if entries.any():
            array = keras.ops.convert_to_numpy(variables[name])
            variables[name].assign(np.where(entries, 0, array))
            pairs[name] = ~entries, variables[name]
    reset_slots(pairs, optimizer or getattr(model, "optimizer", None))
