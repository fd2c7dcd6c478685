"""Whole filters and units as groups of weights: those that make and that read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import get_masks
from keras_lottery.masks import Masks
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.layer_rules import rule_for
from keras_lottery.structured.removal import makers, plain_copy
from keras_lottery.structured.rules import Depthwise, Linear
from keras_lottery.tickets.allocation import Allocation, Scores, largest
from keras_lottery.tickets.allocation.names import check_scores


@dataclass(frozen=True)
class Slices:
    """A weight of which each slice belongs to a group of channels.

    Args:
        weight: its name in the masks.
        axis: along which the slices are.
        groups: the number of each slice's group.
        role: `"filter"` if the slices make the channels, `"channel"` if they read them,
            `""` if they do both.
    """

    weight: str
    axis: int
    groups: np.ndarray
    role: str


@dataclass(frozen=True)
class Units:
    """An allocation of whole filters and units, over scores and masks of weights.

    A filter is worth the mean score of its weights that are alive: those that make it,
    or those that read it. The masks take both. Each layer keeps one filter at least.
    The sparsity is the share of filters, of all that can be pruned; weights go with
    them on both sides, so that theirs is higher.

    Args:
        allocation: which layers the filters are taken from.
        role: `"filter"` to score by the weights that make a filter, `"channel"` by
            those that read it.
        layers: the groups of filters that can be pruned, by layers that are tied.
        slices: the weights that belong to groups.
        unmasked: the groups that layers without masks read, by their path.
        count: the number of groups.
    """

    allocation: Allocation
    role: str
    layers: Mapping[str, np.ndarray]
    slices: Sequence[Slices]
    unmasked: Mapping[str, np.ndarray]
    count: int

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        folded = self.fold(scores, masks)
        return self.silence(masks, self.choose(folded, self.alive(masks), sparsity))

    @property
    def total_sparsity(self) -> Callable[[float, Masks], float] | None:
        """That of the allocation, if it has one."""
        total = getattr(self.allocation, "total_sparsity", None)
        return total and (lambda sparsity, masks: total(sparsity, self.alive(masks)))

    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        """As many filters of each layer, others of them, as of `Grouped.rearrange`."""
        kept, before = self.alive(masks), self.alive(alive)
        worth = self.fold(preference, alive)
        silenced = np.zeros(self.count, bool)
        for name, groups in self.layers.items():
            count = int(kept[name].sum())
            chosen = largest({name: worth[name]}, {name: before[name]}, count)[name]
            silenced[groups[~chosen]] = True
        dense = Masks.dense({name: mask.shape for name, mask in masks.items()})
        # Whether layers without masks may read them is decided where they are pruned.
        return replace(self, unmasked={}).silence(dense, silenced)

    def spread(self, scores: Scores, masks: Masks) -> dict[str, np.ndarray]:
        """Scores of weights that `fold` makes these scores of filters of."""
        worth = np.zeros(self.count)
        for name, groups in self.layers.items():
            worth[groups] = scores[name]
        spread = {name: np.zeros(mask.shape) for name, mask in masks.items()}
        for slices in self.slices:
            if slices.role == self.role:
                rows = np.moveaxis(spread[slices.weight], slices.axis, -1)
                rows[...] = worth[slices.groups]
        return spread

    def alive(self, masks: Masks) -> Masks:
        """Which filters some weight still makes, by layer."""
        left = np.zeros(self.count)
        for slices in self.slices:
            if slices.role == "filter":
                left += self._sum(slices, masks[slices.weight])
        return Masks({name: left[groups] > 0 for name, groups in self.layers.items()})

    def fold(self, scores: Scores, masks: Masks) -> dict[str, np.ndarray]:
        """The scores of filters, by layer."""
        check_scores(scores, masks)
        total, left = np.zeros(self.count), np.zeros(self.count)
        for slices in self.slices:
            if slices.role == self.role:
                mask = masks[slices.weight]
                total += self._sum(slices, np.where(mask, scores[slices.weight], 0))
                left += self._sum(slices, mask)
        mean = total / np.maximum(left, 1)
        return {name: mean[groups] for name, groups in self.layers.items()}

    def choose(self, scores: Scores, alive: Masks, sparsity: float) -> np.ndarray:
        """Which groups are to be pruned, by number.

        Args:
            scores: of filters, by layer.
            alive: the filters that are left, by layer.
            sparsity: the share of filters to be pruned afterwards.
        """
        best = {name: _with_best(score, alive[name]) for name, score in scores.items()}
        left = self.allocation(best, alive, sparsity)
        empty = [name for name in left if alive[name].any() and not left[name].any()]
        if empty:
            raise ValueError(
                f"No filter of {empty} would be left. Received: sparsity={sparsity}. "
                "Prune less, or leave them out: "
                f"allocation=kl.allocation.Uniform(exclude={empty})."
            )
        silenced = np.zeros(self.count, bool)
        for name, groups in self.layers.items():
            silenced[groups[alive[name] & ~left[name]]] = True
        return silenced

    def silence(self, masks: Masks, silenced: np.ndarray) -> Masks:
        """The masks without the weights that make or read the groups."""
        unmasked = [path for path, own in self.unmasked.items() if silenced[own].any()]
        if unmasked:
            raise ValueError(
                f"The layers {sorted(unmasked)} read filters to be pruned and are not "
                "masked, so that they would learn to read them again. Mask them too, "
                "or leave out the layers before them: "
                "allocation=kl.allocation.Uniform(exclude=[...])."
            )
        new = {name: mask.copy() for name, mask in masks.items()}
        for slices in self.slices:
            mask = np.moveaxis(new[slices.weight], slices.axis, 0)
            mask[silenced[slices.groups]] = False
        return Masks(new)

    def _sum(self, slices: Slices, array: np.ndarray) -> np.ndarray:
        """The sums of the slices of each group."""
        rows = np.moveaxis(array, slices.axis, 0).reshape(len(slices.groups), -1)
        return np.bincount(slices.groups, rows.sum(axis=1, dtype=float), self.count)


def find_units(model: keras.Model, allocation: Allocation, role: str) -> Units:
    """The filters of a masked model, as an allocation. Arguments as of `Units`.

    Raises:
        ValueError: if it is not masked, is a subclassed model, or has none.
    """
    masks = get_masks(model)
    return units_of(Graph(plain_copy(model), rule_for), masks, allocation, role)


def units_of(graph: Graph, masks: Masks, allocation: Allocation, role: str) -> Units:
    """The filters of a graph, as an allocation."""
    slices: list[Slices] = []
    unmasked: dict[str, list[np.ndarray]] = {}
    for rule in graph.rules.values():
        path, call = graph.name(rule.layer), rule.calls[0]
        found: list[tuple[str, int | None, np.ndarray, str]] = []
        if isinstance(rule, Linear):
            reads, makes = (t.atoms for t in (call.inputs[0], call.outputs[0]))
            for name, (axis_in, axis_out) in rule.axes.items():
                found.append((name, axis_in, reads, "channel"))
                found.append((name, axis_out, makes, "filter"))
        elif isinstance(rule, Depthwise) and f"{path}/kernel" in masks:
            found.append(("kernel", -2, call.inputs[0].atoms, ""))
        for name, axis, atoms, kind in found:
            if axis is None:
                continue
            groups = graph.groups[atoms]
            weight = f"{path}/{name}"
            if weight in masks:
                # Depthwise kernels make several channels of each input.
                times = masks[weight].shape[axis] // len(groups)
                slices.append(Slices(weight, axis, np.repeat(groups, times), kind))
            else:
                unmasked.setdefault(path, []).append(groups)
    return Units(
        allocation,
        role,
        _layers(graph, masks),
        slices,
        {path: np.concatenate(groups) for path, groups in unmasked.items()},
        int(graph.groups.max(initial=-1)) + 1,
    )


def _layers(graph: Graph, masks: Masks) -> dict[str, np.ndarray]:
    """The groups that can be pruned, by the masked layers that make their channels."""
    fixed = graph.fixed_groups()
    masked = {name.rpartition("/")[0] for name in masks}
    prunable = {
        path: isinstance(rule, Linear) and path in masked
        for path, rule in makers(graph).items()
    }
    made: dict[int, list[str]] = {}
    for path, rule in makers(graph).items():
        for number in graph.groups[rule.calls[0].outputs[0].atoms]:
            made.setdefault(number, []).append(path)
    layers: dict[tuple[str, ...], list[int]] = {}
    for number, paths in sorted(made.items()):
        # A path comes several times where a Reshape ties units of a layer.
        if not fixed[number] and all(prunable[path] for path in paths):
            layers.setdefault(tuple(paths), []).append(number)
    if not layers:
        raise ValueError(
            f"Model '{graph.model.name}' has no filters or units that can be pruned: "
            "none of a masked layer that the model does not return and that no layer "
            "without a rule reads."
        )
    named: dict[str, np.ndarray] = {}
    for path_tuple, numbers in layers.items():
        name = "+".join(dict.fromkeys(path_tuple))
        while name in named:
            name += "'"
        named[name] = np.array(numbers)
    return named


def _with_best(scores: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """The scores of a layer's filters, with one of them above all others."""
    scores = np.array(scores, float)
    if alive.any() and not np.isnan(scores).any():
        scores[np.argmax(np.where(alive, scores, -np.inf))] = np.inf
    return scores
