"""`prune_filters`: whole units and filters, with all that belongs to them."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.graph import Use, inputs_of, run
from keras_lottery.keras_bridge.layers import get_masks, set_masks, walk
from keras_lottery.keras_bridge.layers.state import zero_slots
from keras_lottery.masks import Masks
from keras_lottery.structured import filter_criteria
from keras_lottery.structured.channels import Tensor
from keras_lottery.structured.filter_criteria import FilterCriterion, Filters
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.layer_rules import rule_for
from keras_lottery.structured.removal import plain_copy
from keras_lottery.structured.rules import Depthwise, Linear, PerChannel, weights_of
from keras_lottery.structured.units import Units, units_of
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets.allocation import Allocation

BATCH = 256


def prune_filters(
    model: keras.Model,
    sparsity: float,
    criterion: str | FilterCriterion = "l1",
    allocation: str | Allocation = "uniform",
    data: tuple[Any, Any] | None = None,
    seed: int = 0,
    optimizer: Any = None,
) -> None:
    """Prunes whole filters and units of a masked model, in place.

    Those that a residual connection adds up, or that are tied otherwise, go together
    and count once. The masks take the weights that make a pruned filter and those that
    read it. Its bias, and the scale and offset of its normalisation, become zero; they
    stay zero in training, since nothing reads the filter and their gradients are
    exactly zero. Filters stay that the model returns, or that a layer without a rule
    reads.

    `compact(model)` then makes a smaller model of it.

    Args:
        model: a masked Sequential or Functional model (of `mask_model`).
        sparsity: the share of the filters and units to be pruned afterwards, of all
            that can be. Each layer keeps one at least.
        criterion: what a filter is worth: `"l1"`, the sum of its absolute weights;
            `"fpgm"`, its distance from the layer's others; `"bn_scale"`, the scale of
            its BatchNormalization; `"activation"`, its mean absolute activation over
            `data`; `"random"`; or a function of `Filters`.
        allocation: which layers they are taken from; a name of `allocation` or a
            function. Patterns are those of layers; layers that are tied are called
            `conv_1+conv_3`. The scores of `"l1"` and `"fpgm"` grow with the layer's
            inputs: between layers they cannot be compared.
        data: training data (x, y), for `"activation"`; x as `fit` takes it: an array,
            or a dictionary of arrays by the names of the inputs. y is not read.
        seed: seed of `"random"`.
        optimizer: the optimizer that trains the model, where it is not
            `model.optimizer`.

    Raises:
        ValueError: if the model is not masked or is a subclassed model, if an argument
            is out of range, or if a layer that reads a filter to be pruned is not
            masked. The model is then unchanged.

    Example:

    >>> import keras_lottery as kl
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> kl.prune_filters(model, 0.9)
    >>> [layer.units for layer in kl.compact(model).layers if hasattr(layer, "units")]
    [30, 10, 10]
    """
    graph, masks, silenced = _choose(model, sparsity, criterion, allocation, data, seed)
    set_masks(model, masks, optimizer)
    _zero_shifts(model, graph, silenced, optimizer)


def filter_masks(
    model: keras.Model,
    sparsity: float,
    criterion: str | FilterCriterion = "l1",
    allocation: str | Allocation = "uniform",
    data: tuple[Any, Any] | None = None,
    seed: int = 0,
) -> Masks:
    """The masks that `prune_filters` would set, by the same arguments."""
    return _choose(model, sparsity, criterion, allocation, data, seed)[1]


def _choose(
    model: keras.Model,
    sparsity: float,
    criterion: str | FilterCriterion,
    allocation: str | Allocation,
    data: tuple[Any, Any] | None,
    seed: int,
) -> tuple[Graph, Masks, np.ndarray]:
    """The model's graph, the masks without the pruned groups, and which those are."""
    masks = get_masks(model)
    graph = Graph(plain_copy(model), rule_for)
    units = units_of(graph, masks, allocations.get(allocation), "filter")
    rng = np.random.default_rng(seed)
    filters = _all_filters(graph, units, masks, data, rng)
    alive = Masks({name: each.alive for name, each in filters.items()})
    scores = _scores(filters, criterion)
    silenced = units.choose(scores, alive, sparsity)
    return graph, units.silence(masks, silenced), silenced


def scores_of_filters(
    model: keras.Model,
    criterion: str | FilterCriterion,
    data: tuple[Any, Any] | None,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Scores of weights: each that makes a filter has the filter's score.

    So that a criterion of filters does wherever one of weights does, with an allocation
    of filters (`Units`). Arguments as of `prune_filters`.
    """
    masks = get_masks(model)
    graph = Graph(plain_copy(model), rule_for)
    units = units_of(graph, masks, allocations.get("uniform"), "filter")
    filters = _all_filters(graph, units, masks, data, rng)
    return units.spread(_scores(filters, criterion), masks)


def _scores(
    filters: Mapping[str, Filters], criterion: str | FilterCriterion
) -> dict[str, np.ndarray]:
    """A score of each filter, by layer."""
    score = filter_criteria.get(criterion)
    scores = {name: np.asarray(score(each)) for name, each in filters.items()}
    for name, each in filters.items():
        if scores[name].shape != each.alive.shape:
            called = getattr(criterion, "__name__", criterion)
            raise ValueError(
                f"Expected a score for each filter of '{name}', of shape "
                f"{each.alive.shape}. Received: scores of shape {scores[name].shape} "
                f"from criterion={called}."
            )
    return scores


def _all_filters(
    graph: Graph,
    units: Units,
    masks: Masks,
    data: tuple[Any, Any] | None,
    rng: np.random.Generator,
) -> dict[str, Filters]:
    activations = cache(lambda: _activations(graph, data))
    return {
        name: _filters(name, groups, graph, masks, activations, rng)
        for name, groups in units.layers.items()
    }


def _filters(
    name: str,
    groups: np.ndarray,
    graph: Graph,
    masks: Masks,
    activations: Callable[[], np.ndarray],
    rng: np.random.Generator,
) -> Filters:
    """What the criteria may look at."""

    def rows(tensor: Tensor, array: np.ndarray, axis: int = 0) -> list[np.ndarray]:
        """What belongs to the channels of each group, a row for each, if any does."""
        numbers = graph.groups[tensor.atoms]
        order = np.argsort(numbers, kind="stable")
        order = order[np.isin(numbers[order], groups)]
        if not len(order):
            return []
        return [np.moveaxis(array, axis, 0)[order].reshape(len(groups), -1)]

    kernels, alive, scales = [], [], []
    for rule in graph.rules.values():
        call = rule.calls[0]
        if isinstance(rule, Linear):
            ((weight, axis),) = [(n, o) for n, (_, o) in rule.axes.items() if o]
            kept = rows(call.outputs[0], weights_of(rule.layer)[weight], axis)
            if kept:
                kernels += kept
                mask = masks[f"{graph.name(rule.layer)}/{weight}"]
                alive += rows(call.outputs[0], mask, axis)
        elif isinstance(rule.layer, keras.layers.BatchNormalization):
            weights = weights_of(rule.layer)
            if isinstance(rule, PerChannel) and "gamma" in weights:
                scales += rows(call.inputs[0], np.abs(weights["gamma"]))
    return Filters(
        name,
        alive=np.any([mask.any(axis=1) for mask in alive], axis=0),
        kernels=kernels,
        scales=[scale.mean(axis=1) for scale in scales],
        activations=lambda: activations()[groups],
        rng=rng,
    )


def _activations(graph: Graph, data: tuple[Any, Any] | None) -> np.ndarray:
    """The mean absolute value of each group's channels where layers read them."""
    if data is None:
        raise ValueError(
            "criterion='activation' needs training data. Received: data=None. "
            "Pass `data=(x, y)`."
        )
    arrays, dtypes = _inputs(graph.model, data)
    total = np.zeros(graph.groups.max() + 1)
    count = np.zeros(len(total))
    for start in range(0, len(arrays[0]), BATCH):
        calls = iter(graph.calls)

        def execute(use: Use, values: list[Any]) -> list[Any]:
            call = next(calls)  # noqa: B023
            if isinstance(graph.rules[id(call.layer)], Linear):
                sizes = np.abs(keras.ops.convert_to_numpy(values[0]))
                sizes = sizes.reshape(-1, sizes.shape[-1])
                groups = graph.groups[call.inputs[0].atoms]
                np.add.at(total, groups, sizes.sum(axis=0, dtype="float64"))
                np.add.at(count, groups, len(sizes))
            return use.compute()

        batch = [
            keras.ops.convert_to_tensor(array[start : start + BATCH], dtype)
            for array, dtype in zip(arrays, dtypes, strict=True)
        ]
        run(graph.model, batch, execute)
    return total / np.maximum(count, 1)


def _inputs(
    model: keras.Model, data: tuple[Any, Any]
) -> tuple[list[np.ndarray], list[str]]:
    """The arrays in the order of the model's inputs, and the types that these have."""
    structure = inputs_of(model)
    # As Keras calls them: by key where the model takes a dictionary.
    tensors = {
        path[-1] if path and isinstance(path[-1], str) else tensor.name: tensor
        for path, tensor in keras.tree.flatten_with_path(structure)
    }
    x = data[0] if isinstance(data, tuple | list) and len(data) == 2 else None
    if isinstance(x, Mapping):
        given = [x[name] for name in tensors if name in x]
    else:
        keyed = len(tensors) > 1 and isinstance(structure, dict)
        given = [] if x is None or keyed else keras.tree.flatten(x)
    arrays = [np.asarray(array) for array in given]
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if (
        len(arrays) != len(shapes)
        or len({array.shape[:1] for array in arrays}) != 1
        or not all(map(_fits, arrays, shapes))
    ):
        raise ValueError(
            "Expected `data` to be a pair (x, y), with the same number of rows in x, "
            "at least one, for each input of "
            f"{dict(zip(tensors, shapes, strict=True))}. Received: "
            f"{[array.shape for array in arrays] or type(data).__name__}. Pass an "
            "array for a model of one input, else a dictionary of arrays by name."
        )
    return arrays, [tensor.dtype for tensor in tensors.values()]


def _fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) and all(
        got == wanted or (wanted is None and got > 0)
        for got, wanted in zip(array.shape, (None, *shape[1:]), strict=True)
    )


def _zero_shifts(
    model: keras.Model, graph: Graph, silenced: np.ndarray, optimizer: Any
) -> None:
    """Zeroes what shifts and scales the groups: biases and normalisations."""
    layers = dict(walk(model))
    pairs = {}
    for rule in graph.rules.values():
        path, call = graph.name(rule.layer), rule.calls[0]
        names: tuple[str, ...] = ()
        if isinstance(rule, Linear | Depthwise):
            names = ("bias",)
        elif isinstance(rule.layer, keras.layers.BatchNormalization):
            names = ("gamma", "beta")
        for name in names:
            variable = getattr(layers[path], name, None)
            dead = silenced[graph.groups[call.outputs[0].atoms]]
            if variable is not None and dead.any():
                array = np.where(dead, 0, keras.ops.convert_to_numpy(variable))
                variable.assign(array)
                pairs[f"{path}/{name}"] = (~dead, variable)
    zero_slots(pairs, optimizer or getattr(model, "optimizer", None))
