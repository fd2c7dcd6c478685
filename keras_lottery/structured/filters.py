"""The data for criteria that score filters, and their use as criteria of snapshots.

A filter is a filter of a convolution or a unit of a Dense layer, together with the
filters of other layers to which residual connections tie it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.calibration import matrices_of
from keras_lottery.keras_bridge.graph import Use, run
from keras_lottery.masks import Masks
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.loss import LossWithFactors
from keras_lottery.structured.maps import batches, of_feature_maps
from keras_lottery.structured.removal import check_followed
from keras_lottery.structured.rules import Linear, PerChannel, rule_for, weights_of
from keras_lottery.structured.units import layers_of
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.allocation.names import matches
from keras_lottery.tickets.criteria import Criterion


@dataclass(frozen=True)
class Filters:
    """The filters of a layer, or of several layers that are tied together.

    Args:
        name: the layer's path; the paths of tied layers are joined by `+`.
        alive: booleans (filters,), true for filters that are not pruned yet.
        kernels: an array (filters, weights) for each layer.
        scales: gamma of each BatchNormalization behind the filters, of shape
            (filters,).
        activations: returns the mean absolute value (filters,), over the data, of the
            activations that the next layers read.
        rng: random numbers.
        products: returns XᵀX over the data (filters, filters), where X_i is the
            contribution of filter i to the next layers' outputs.
        loss: maps a factor for each filter (filters,) to the compiled loss over the
            data (x, y), where the filters' activations are multiplied by the factors as
            the next layers read them.
        of_maps: applies a function to the feature maps (images, *places, filters) of
            one batch after the other, and concatenates the results over all data. Of
            all tensors with these filters, the maps are the last one of the largest
            size: behind the activation and before the pooling.
        groups: the index of each filter's group of channels in the model (filters,).
    """

    name: str
    alive: np.ndarray
    kernels: Sequence[np.ndarray]
    scales: Sequence[np.ndarray]
    activations: Callable[[], np.ndarray]
    rng: np.random.Generator
    products: Callable[[], np.ndarray]
    loss: Callable[[np.ndarray], float]
    of_maps: Callable[[Callable[[np.ndarray], np.ndarray]], np.ndarray]
    groups: np.ndarray


def of_filters(score: Callable[[Filters], np.ndarray]) -> Criterion:
    """Turns a function of a layer's filters into a criterion for filter pruning.

    Args:
        score: returns the score of each filter, an array (filters,); larger means keep.
            The criterion is for `granularity="filter"`.

    Example:

    >>> import keras_lottery as kl
    >>> @of_filters
    ... def largest_weight(filters):
    ...     return np.max([abs(kernel).max(axis=1) for kernel in filters.kernels], 0)
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> kl.prune(model, 0.9, largest_weight, granularity="filter")
    >>> [layer.units for layer in kl.compact(model).layers if hasattr(layer, "units")]
    [30, 10, 10]
    """

    @wraps(score)
    def criterion(snapshot: Snapshot) -> Scores:
        if (model := snapshot.model) is None:
            raise ValueError(
                f"criterion={criterion.__name__!r} follows the model from layer to "
                "layer, which it does not have while it trains. Received: "
                "mask_epochs='auto'. Give a number."
            )
        check_followed(model)
        return {
            filters.name: _checked(score, filters)
            for filters in filters_of(snapshot)
            if not any(matches(filters.name, p) for p in snapshot.exclude)
        }

    return Criterion(criterion)


def _checked(score: Callable[[Filters], np.ndarray], filters: Filters) -> np.ndarray:
    scores = np.asarray(score(filters))
    if scores.shape != filters.alive.shape:
        raise ValueError(
            f"Expected a score for each filter of '{filters.name}', of shape "
            f"{filters.alive.shape}. Received: scores of shape {scores.shape} from "
            f"criterion={score.__name__}."
        )
    return scores


@dataclass(frozen=True)
class _Rows:
    """An array of one kind with a row for each channel of a layer."""

    kind: str
    groups: np.ndarray
    array: np.ndarray

    def of(self, groups: np.ndarray) -> np.ndarray:
        """Returns a row for each group, joined from the rows of all its channels."""
        order = np.argsort(self.groups, kind="stable")
        order = order[np.isin(self.groups[order], groups)]
        return self.array[order].reshape(len(groups), -1)


def filters_of(snapshot: Snapshot, factors: np.ndarray | None = None) -> list[Filters]:
    """Returns the filters of each layer, or of tied layers, of a snapshot's model.

    Args:
        snapshot: the snapshot of a masked Sequential or Functional model.
        factors: for each group of channels, the factor that `Filters.loss` uses for the
            channels of other layers. The array is read again at the first loss of each
            layer.
    """
    graph = Graph(snapshot.model, rule_for)
    if factors is None:
        factors = np.ones(graph.groups.max() + 1)
    activations = cache(lambda: _activations(graph, snapshot))
    rows = _rows(graph, snapshot.masks)
    by_group: dict[int, list[int]] = {}
    for index, one in enumerate(rows):
        for group in np.unique(one.groups):
            by_group.setdefault(group, []).append(index)
    filters = []
    for name, groups in layers_of(graph, snapshot.masks).items():
        own = sorted({index for group in groups for index in by_group[group]})
        found: dict[str, list[np.ndarray]] = {"kernel": [], "mask": [], "scale": []}
        for one in map(rows.__getitem__, own):
            found[one.kind].append(one.of(groups))
        filters.append(
            Filters(
                name,
                alive=np.any([mask.any(axis=1) for mask in found["mask"]], axis=0),
                kernels=found["kernel"],
                scales=[scale.mean(axis=1) for scale in found["scale"]],
                activations=partial(lambda groups: activations()[groups], groups),
                rng=snapshot.rng,
                products=partial(_products, graph, snapshot, groups),
                loss=LossWithFactors(graph, snapshot, groups, factors),
                of_maps=partial(of_feature_maps, graph, snapshot, groups),
                groups=groups,
            )
        )
    return filters


def _rows(graph: Graph, masks: Masks) -> list[_Rows]:
    """Returns the kernels and masks that make channels, and the scales behind them."""
    rows = []
    for rule in graph.rules.values():
        call = rule.calls[0]
        if isinstance(rule, Linear):
            groups = graph.groups[call.outputs[0].atoms]
            ((weight, axis),) = [(n, o) for n, (_, o) in rule.axes.items() if o]
            mask = masks.get(f"{graph.name(rule.layer)}/{weight}")
            if mask is not None:
                kernel = np.where(mask, weights_of(rule.layer)[weight], 0)
                for kind, array in (("kernel", kernel), ("mask", mask)):
                    rows.append(_Rows(kind, groups, _flat(array, axis)))
        elif isinstance(rule.layer, keras.layers.BatchNormalization):
            weights = weights_of(rule.layer)
            if isinstance(rule, PerChannel) and "gamma" in weights:
                groups = graph.groups[call.inputs[0].atoms]
                rows.append(_Rows("scale", groups, _flat(np.abs(weights["gamma"]), 0)))
    return rows


def _flat(array: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _activations(graph: Graph, snapshot: Snapshot) -> np.ndarray:
    """Returns the mean absolute value of each group's channels as layers read them."""
    if snapshot.data is None:
        raise ValueError(
            "criterion='activation' needs inputs. Received: data=None. Pass `data=x`."
        )
    total = np.zeros(graph.groups.max() + 1)
    count = np.zeros(len(total))
    for batch in batches(graph, snapshot):
        calls = iter(graph.calls)

        def execute(use: Use, values: list[Any]) -> list[Any]:
            call = next(calls)  # noqa: B023
            if isinstance(graph.rules[id(call.layer)], Linear):
                sizes = np.abs(keras.ops.convert_to_numpy(values[0]))
                sizes = sizes.reshape(-1, sizes.shape[-1])
                groups = graph.groups[call.inputs[0].atoms]
                np.add.at(total, groups, sizes.sum(axis=0, dtype="float64"))
                np.add.at(count, groups, len(sizes))
            return use.compute(values)

        run(graph.model, batch, execute)
    return total / np.maximum(count, 1)


def _products(graph: Graph, snapshot: Snapshot, groups: np.ndarray) -> np.ndarray:
    """Returns XᵀX of the filters' contributions to the outputs of the next layers.

    The term of each layer is divided by the size of all these filters' contribution to
    its outputs.
    """
    total = np.zeros((len(groups), len(groups)))
    for rule in graph.rules.values():
        read = graph.groups[rule.calls[0].inputs[0].atoms]
        if not isinstance(rule, Linear) or not np.isin(read, groups).any():
            continue
        # A separable convolution reads with two kernels; the last one is used.
        *_, weight = [n for n, (i, _) in rule.axes.items() if i is not None]
        name = f"{graph.name(rule.layer)}/{weight}"
        if name not in snapshot.masks:
            continue
        of = matrices_of(snapshot.model, [name])[name]
        kernel = of.of(
            np.where(snapshot.masks[name], weights_of(rule.layer)[weight], 0)
        )
        for moments, matrix in zip(snapshot.second_moments(name), kernel, strict=True):
            times = len(moments) // len(read)
            # The channels of a patch are adjacent; those of a depthwise output are not.
            apart = weight == "pointwise_kernel"
            rows = np.repeat(read, times) if apart else np.tile(read, times)
            own = (rows[:, np.newaxis] == groups).astype(float)
            part = own.T @ (moments * (matrix @ matrix.T)) @ own
            total += part / max(part.sum(), 1e-30)
    return total
