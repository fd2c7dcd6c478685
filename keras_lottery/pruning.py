"""Pruning a snapshot, and pruning a model once."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.calibration import matrices_of
from keras_lottery.keras_bridge.gradients import compiled_once, keeping
from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    set_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.keras_bridge.layers.recurrent import at_rest
from keras_lottery.keras_bridge.layers.state import reset_slots, trained_masks
from keras_lottery.masks import Masks
from keras_lottery.tickets import Snapshot, criteria, grouping
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets import repair as repairs
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
    check_shares,
)
from keras_lottery.tickets.allocation.names import included
from keras_lottery.tickets.criteria import Criterion, CriterionLike
from keras_lottery.tickets.grouping import Granularity, Grouped, Weights, within
from keras_lottery.tickets.repair import Repair, RepairLike

THIN = 0.01
"""The density of a layer below which `prune` warns."""

_REMEDY = (
    "Choose a smaller sparsity, an allocation with shares by layer, such as 'erk', or "
    "`Global(floor=0.3)`, or leave them out, by `exclude=` of the allocation or "
    "`prunable=` of `mask_model`."
)


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
    """Prunes a masked model, once and in place.

    Filters and units that a residual connection adds up, or that are tied otherwise,
    go together and count once. The masks take the weights that make a pruned filter
    and those that read it. Its bias, and the scale and offset of its normalisation,
    become zero; they stay zero in training, since nothing reads the filter and their
    gradients are exactly zero. Filters stay that the model returns, or that a layer
    without a rule reads. `compact(model)` then makes a smaller model of it.

    Args:
        model: a masked model (of `mask_model`).
        sparsity: the share of its prunable weights to be zero afterwards; of filters
            and units, the share of those that can be pruned. Each layer keeps one of
            them at least. Or that of each layer, by pattern of layer or weight name,
            `{"conv*": 0.5, "dense*": 0.8}`: the first match counts, and layers that
            match none, or are sparser already, stay as they are.
        criterion: what a weight is worth; a name of `criteria` or a function of a
            snapshot. The model's weights stand for the initial ones too. With
            `granularity="filter"`, what a filter is worth: `"l1"`, the sum of its
            absolute weights; `"fpgm"`, its distance from the layer's others;
            `"bn_scale"`, the scale of its BatchNormalization; `"activation"`, its mean
            absolute activation over `data`; `"hrank"`, the mean rank of its feature
            maps; `"entropy"`, that of their means over `data`; `"lasso"`, how soon the
            lasso of the next layers' outputs takes it; `"greedy_forward"`, how soon an
            average of few filters takes it to lower the loss, or to imitate the next
            layers' outputs, `"greedy_imitation"`; `"random"`; or one of `of_filters`.
            The scores of `"l1"` and `"fpgm"` grow with the layer's inputs: between
            layers they cannot be compared.
        allocation: which layers the weights are taken from; a name of `allocation` or
            a function. By default `"global"`, and `"uniform"` for filters and for
            criteria whose scores do not compare between layers, as `"wanda"`. There,
            patterns are those of layers; layers that are tied are called
            `conv_1+conv_3`. Not where `sparsity` says it for each layer.
        granularity: what is pruned together, see `grouping.get`: `"weight"`, each by
            itself; blocks of weights, `"block_1x4"` of LiteRT (four inputs of one
            output) or a pair (inputs, outputs); `"2:4"`, which keeps 2 of 4 inputs.
            The sparsity comes as near as groups allow. Or `"filter"` and `"channel"`:
            whole units and filters, worth the mean score of the weights that make
            them, or that read them; `"head"`, whole heads of attention. Or one of
            those inside of weights by pattern of layer or weight name,
            `{"conv*": "2:4", "dense*": "weight"}`.
        data: training data, for the criteria that need them: (x, y) in arrays, tables
            or dictionaries of them by the names of the inputs, or a batched
            `tf.data.Dataset` or `PyDataset`, which is read whole. `"activation"`,
            `"lasso"`, `"greedy_imitation"`, `"wanda"`, `"ria"`, `"sparsegpt"`, `"admm"`
            and most repairs need no targets: x alone will do, some hundred examples.
        seed: seed of the criteria that draw random numbers.
        rounds: in how many rounds of scoring and pruning; each prunes the same share
            of what the one before left. By default as many as the criterion has: 100
            for `"synflow"`, 1 for most.
        optimizer: the optimizer that trains the model, where it is not
            `model.optimizer`.
        frozen: whether masked weights of frozen layers are pruned, too. If not, they
            and their masks stay as they are, and the sparsity is that of the others.
        repair: how the weights that are left are changed, so that layers return what
            they did before, as nearly as they can: `"least_squares"`, `"sparsegpt"`,
            `"admm"`, for filters `"greedy_forward"` and `"greedy_imitation"`, or a
            function, see `kl.repair`. By default weights stay as they are, but for the
            criteria of these names: `"sparsegpt"` and `"admm"` choose and repair by
            turns, the greedy ones make averages of filters.

    A layer that falls below 1 % of its weights warns, once, and one that loses its
    last; so does a wrapper that divides by the norm of an output's weights, all of
    which were pruned, and returns NaN.

    Raises:
        ValueError: if the model is not masked, an argument is out of range, a score
            is not a number, or all of them are zero; of filters, if it is a subclassed
            model, or a layer that reads a filter to be pruned is not masked. The model
            is then unchanged.

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
    left = snapshot.grouping.left
    sparsity, allocation = of_network(sparsity, allocation, left(snapshot.masks))
    how = chosen(criterion, allocation, granularity)
    mend = repairer(repair, how[0])
    with keeping(model):
        masks, _ = prune_snapshot(snapshot, sparsity, *how, rounds)
        repaired: State = {}
        if mend is not None:
            repaired, masks = repaired_snapshot(mend, snapshot, masks)
    before = snapshot.masks
    _warn_of_thin_layers(left(before), left(masks), sparsity)
    set_masks(model, {**snapshot.others, **masks}, optimizer)
    variables = named_variables(model)
    for name, array in repaired.items():
        own = variables[name].constraint
        variables[name].assign(array if own is None else own(array))
    _zero(model, snapshot.grouping.idle(before, masks), optimizer)
    _warn_of_wrappers(model, before, masks)


def of_network(
    sparsity: Sparsity, allocation: AllocationLike | None, masks: Masks
) -> tuple[float, AllocationLike | None]:
    """The whole network's sparsity, and the allocation that shares it out.

    Args:
        sparsity: that, or the sparsity of each layer by pattern of names.
        allocation: what was asked for.
        masks: what the sparsity is a share of.

    Raises:
        ValueError: if a pattern matches no layer.
    """
    check_by_layer("sparsity", sparsity, allocation)
    if not isinstance(sparsity, Mapping):
        return sparsity, allocation
    by_layer = LayerSparsities.of(sparsity, masks)
    return by_layer.sparsity(masks), by_layer


def check_by_layer(
    argument: str, sparsity: Sparsity, allocation: AllocationLike | None
) -> None:
    """Raises ValueError unless it is a sparsity, or one of each layer."""
    if not isinstance(sparsity, Mapping):
        check_sparsity(sparsity, argument)
        return
    check_shares(argument, sparsity)
    if allocation is not None:
        checks.refuse(
            "allocation",
            f"left out where `{argument}` is given by layer, which says it all",
            allocation,
        )


def repairer(repair: RepairLike | None, criterion: Criterion) -> Repair | None:
    """The repair that is asked for, or the one that belongs to a criterion, if any."""
    if repair is None or (isinstance(repair, str) and repair == criterion.repair):
        return repairs.OF_CRITERIA.get(criterion.repair or "")
    return repairs.get(repair)


def repaired_snapshot(
    repair: Repair, snapshot: Snapshot, masks: Masks
) -> tuple[State, Masks]:
    """What a repair changes, checked, and the masks of it.

    Raises:
        ValueError: if it returns other names or shapes than the model's, or numbers
            that are not finite.
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


def default_allocation(criterion: CriterionLike, granularity: Granularity) -> str:
    """The allocation's name where none is asked for.

    Raises:
        ValueError: if the criterion or the granularity is unknown.
    """
    kind = grouping.get(granularity)
    if isinstance(criterion, str) and criterion in kind.criteria:
        return kind.default_allocation
    return criteria.get(criterion).allocation or kind.default_allocation


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
    """The masks that `prune` would set, by the same arguments; it changes nothing.

    Those of `"sparsegpt"` and `"admm"` are the ones that their repair starts from.
    """
    snapshot = _snapshot(model, granularity, data, seed, frozen)
    masks = snapshot.grouping.left(snapshot.masks)
    sparsity, allocation = of_network(sparsity, allocation, masks)
    how = chosen(criterion, allocation, granularity)
    with keeping(model):
        masks, _ = prune_snapshot(snapshot, sparsity, *how, rounds)
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
    """Prunes once as `prune` does, by the same arguments, but changes nothing.

    For a training that prunes later on: what cannot be pruned is known before.

    Raises:
        ValueError: if it cannot be pruned so.
    """
    snapshot = _snapshot(model, granularity, data, seed, frozen)
    score, allocate = chosen(criterion, allocation, granularity)
    # Training will have moved what is zero, which hides all behind it.
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


def chosen(
    criterion: CriterionLike,
    allocation: AllocationLike | None,
    granularity: Granularity,
) -> tuple[Criterion, Allocation]:
    """The criterion and the allocation that names stand for, at a granularity.

    Raises:
        ValueError: if one of the three is unknown.
    """
    kind = grouping.get(granularity)
    if allocation is None:
        allocation = default_allocation(criterion, granularity)
    allocate = allocations.get(allocation)
    if isinstance(criterion, str) and criterion in kind.criteria:
        return kind.criteria[criterion], allocate
    return criteria.get(criterion), allocate


def prune_snapshot(
    snapshot: Snapshot,
    sparsity: Sparsity,
    criterion: CriterionLike = "magnitude",
    allocation: AllocationLike = "global",
    rounds: int | None = None,
) -> tuple[Masks, Scores]:
    """The masks that leave the best of a snapshot. Arguments are those of `prune`.

    A sparsity of each layer by pattern of names takes the place of the allocation.
    After round k of n the density is d_0 (d_n / d_0)^(k / n).

    Returns:
        The masks, and the scores of the first round, which all weights are in.
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
        rounds = 1  # The allocation says what is wrong, if something is.
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
    """The allocation, among the weights of one output where the criterion wants it."""
    allocate = allocations.get(allocation)
    across = snapshot.grouping.left(snapshot.masks).keys() != snapshot.masks.keys()
    # Without a model there are no inputs to score by either, and the criterion says so.
    if not score.within_outputs or across or snapshot.shared_model is None:
        return allocate
    of = matrices_of(snapshot.shared_model, included(snapshot.masks, allocate.exclude))
    kinds = within(snapshot.grouping, snapshot.masks)
    outputs = {
        name: matrix.outputs
        for name, matrix in of.items()
        # Groups inside of weights take the last axis for the outputs.
        if isinstance(kinds.get(name), Weights) or matrix.is_plain
    }
    return ByOutput(allocate, outputs)


def scored(score: Criterion, snapshot: Snapshot, allocation: Allocation) -> Scores:
    """The scores of a snapshot; those that the allocation does not look at are zero."""
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
            "Expected scores that tell weights apart. Received: zeros alone, from "
            f"criterion={criterion!r}. All weights or all derivatives are zero, as "
            "behind a layer that is initialised with zeros. Initialise it otherwise, "
            "train before pruning, or choose another criterion, such as 'magnitude'."
        )


def _pruned(snapshot: Snapshot, masks: Masks) -> Snapshot:
    """As if it had been pruned before."""
    final = dict(snapshot.final)
    for name, mask in masks.items():
        final[name] = np.where(mask, final[name], 0)
    return dataclasses.replace(snapshot, masks=masks, final=final)


def _snapshot(
    model: keras.Model, granularity: Granularity, data: Any, seed: int, frozen: bool
) -> Snapshot:
    """A model that is not trained, or is pruned where it is."""
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


def _warn_of_thin_layers(before: Masks, after: Masks, sparsity: float) -> None:
    """Warns of layers that this pruning leaves next to nothing, or nothing."""
    # At 99.9 %, layers of 0.1 % are what was asked for.
    least = min(THIN, (1 - sparsity) / 2)
    share = {name: mask.mean() for name, mask in after.items()}
    fell = {name: share[name] for name, m in before.items() if m.mean() >= least}
    thin = {name: f"{one:.2%}" for name, one in fell.items() if 0 < one < least}
    lost = [n for n, mask in before.items() if mask.any() and not share[n]]
    if lost:
        warnings.warn(
            f"No weights are left of {lost} at sparsity={sparsity}. Where no other "
            "path leads by, the outputs are constant, and training cannot mend it. "
            f"{_REMEDY}",
            stacklevel=3,
        )
    if thin:
        warnings.warn(
            f"Few weights are left of {thin} at sparsity={sparsity}. Layers as thin as "
            f"these cost much accuracy. {_REMEDY}",
            stacklevel=3,
        )


def _warn_of_wrappers(model: keras.Model, before: Masks, after: Masks) -> None:
    """Warns of wrappers that return NaN where an output lost all its weights."""
    for path, layer in walk(model):
        if not isinstance(layer, keras.layers.Wrapper):
            continue
        lost = {
            name: int(np.count_nonzero(_outputs(before[name]) & ~_outputs(mask)))
            for name, mask in after.items()
            if name.startswith(f"{path}/")
        }
        if any(lost.values()) and _returns_nan(model, layer):
            warnings.warn(
                f"The layer '{path}' ({type(layer).__name__}) returns NaN: all weights "
                f"of an output were pruned, of {lost}, by whose norm it divides. Add a "
                "small number to the norm, leave the layer out, by `prunable=` of "
                "`mask_model`, or choose a smaller sparsity.",
                stacklevel=3,
            )


def _outputs(mask: np.ndarray) -> np.ndarray:
    """Which outputs have a weight."""
    return np.asarray(mask.reshape(-1, mask.shape[-1]).any(axis=0))


def _returns_nan(model: keras.Model, layer: keras.layers.Layer) -> bool:
    shape = (layer.get_build_config() or {}).get("input_shape", ())
    try:
        # Of zeros, a layer that normalises its inputs would make NaN by itself.
        inputs = keras.ops.ones([size or 1 for size in shape], layer.compute_dtype)
        with keeping(model), at_rest(model):
            outputs = keras.tree.flatten(layer(inputs, training=False))
    except Exception:
        # It takes more than one input, or others: nothing is known then.
        return False
    arrays = map(keras.ops.convert_to_numpy, outputs)
    return any(np.isnan(array.astype("float32")).any() for array in arrays)


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
