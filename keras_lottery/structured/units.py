"""`granularity="filter"` and `"channel"`: whole filters and units across layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.removal import check_followed, makers
from keras_lottery.structured.rules import Grouped, Linear, Rule, rule_for
from keras_lottery.tickets.allocation import Scores, largest
from keras_lottery.tickets.allocation.names import check_scores
from keras_lottery.tickets.grouping import Grouping, Groups

NORMALISATIONS = keras.layers.BatchNormalization | keras.layers.GroupNormalization


class NoFilters(ValueError):
    """A model has no filters or units that can be pruned."""


@dataclass(frozen=True)
class Slices:
    """A weight whose slices each belong to a group of channels.

    Args:
        weight: the name of the weight in the masks.
        axis: the axis along which the weight is sliced.
        groups: the index of each slice's group.
        role: `"filter"` if the slices make the channels, `"channel"` if they read them,
            `""` if they do both.
    """

    weight: str
    axis: int
    groups: np.ndarray
    role: str


@dataclass(frozen=True)
class Units(Grouping):
    """Whole filters and units, in all the layers that they reach over.

    The score of a filter is the mean score of its weights that are alive, either those
    that make the filter or those that read it; or it is the score that a criterion of
    filters gives it. The masks prune both kinds of weights. Each layer keeps at least
    one filter. The sparsity is the share of the prunable filters that are pruned.
    Because weights are pruned on both sides of a filter, the sparsity of the weights is
    higher.

    Args:
        role: `"filter"` to score by the weights that make a filter, `"channel"` by
            those that read it.
        layers: the groups of filters that can be pruned, by layer or tied layers.
        slices: the weights that belong to groups.
        unmasked: the groups that are read by layers without masks, or with masks that
            may not change, by the path of the layer.
        shifts: the group of each entry of a bias or a normalisation, by variable.
        count: the number of groups.
    """

    role: str
    layers: Mapping[str, np.ndarray]
    slices: Sequence[Slices]
    unmasked: Mapping[str, np.ndarray]
    shifts: Mapping[str, np.ndarray]
    count: int

    def fold(self, scores: Scores, masks: Masks) -> Groups:
        alive = self.left(masks)
        worth = self._worth(scores, masks)
        best = {name: _with_best(score, alive[name]) for name, score in worth.items()}
        return Groups(best, alive, partial(self._unfold, masks, alive))

    def left(self, masks: Masks) -> Masks:
        """Marks the filters that still have a weight that makes them, by layer."""
        left = np.zeros(self.count)
        for slices in self.slices:
            if slices.role == "filter":
                left += self._sum(slices, masks[slices.weight])
        return Masks({name: left[groups] > 0 for name, groups in self.layers.items()})

    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        kept, before = self.left(masks), self.left(alive)
        worth = self._worth(preference, alive)
        chosen: dict[str, np.ndarray] = {}
        for name in self.layers:
            count = int(kept[name].sum())
            chosen |= largest(worth, {name: before[name]}, count)
        dense = Masks.dense({name: mask.shape for name, mask in masks.items()})
        return self._silence(dense, self._lost(self.left(dense), chosen))

    def makers(self, before: Masks, after: Masks) -> dict[str, np.ndarray]:
        """Marks the entries of weights that make the pruned filters, by weight."""
        lost = self._lost(self.left(before), self.left(after))
        found: dict[str, np.ndarray] = {}
        for slices in self.slices:
            if slices.role == "filter":
                none = np.zeros(before[slices.weight].shape, bool)
                entries = found.setdefault(slices.weight, none)
                np.moveaxis(entries, slices.axis, 0)[lost[slices.groups]] = True
        return found

    def idle(self, before: Masks, after: Masks) -> dict[str, np.ndarray]:
        """Marks pruned filters' biases and their normalisations' scales and offsets."""
        lost = self._lost(self.left(before), self.left(after))
        return {name: lost[groups] for name, groups in self.shifts.items()}

    def scaled(self, state: State, factors: np.ndarray) -> State:
        """Returns the weights that read channels, times a factor for each group.

        Only the weights that change are returned.
        """
        scaled: dict[str, np.ndarray] = {}
        for slices in self.slices:
            own = factors[slices.groups]
            if slices.role == "channel" and (own != 1).any():
                array = state[slices.weight]
                rows = np.moveaxis(array, slices.axis, -1) * own
                moved = np.moveaxis(rows, -1, slices.axis)
                scaled[slices.weight] = moved.astype(array.dtype)
        return scaled

    def _worth(self, scores: Scores, masks: Masks) -> Scores:
        """Returns the scores of filters, by layer."""
        if scores.keys() == self.layers.keys():
            return scores  # already scores of filters
        check_scores(scores, masks)
        total, left = np.zeros(self.count), np.zeros(self.count)
        for slices in self.slices:
            if slices.role == self.role:
                mask = masks[slices.weight]
                total += self._sum(slices, np.where(mask, scores[slices.weight], 0))
                left += self._sum(slices, mask)
        mean = total / np.maximum(left, 1)
        return {name: mean[groups] for name, groups in self.layers.items()}

    def _unfold(self, masks: Masks, alive: Masks, kept: Masks) -> Masks:
        empty = [name for name in kept if alive[name].any() and not kept[name].any()]
        if empty:
            raise ValueError(
                f"No filter would be left in {empty}: only {kept.kept} of {kept.size} "
                "were to be kept in all. Prune less, or leave these layers out: "
                f"allocation=kl.allocation.Uniform(exclude={empty})."
            )
        lost = self._lost(alive, kept)
        unmasked = [path for path, own in self.unmasked.items() if lost[own].any()]
        if unmasked:
            raise ValueError(
                f"The layers {sorted(unmasked)} read filters to be pruned, and are not "
                "masked, or are frozen: pruned filters would still reach them through "
                "their biases. Mask or unfreeze them, or leave out the layers before "
                "them: "
                "allocation=kl.allocation.Uniform(exclude=[...])."
            )
        return self._silence(masks, lost)

    def _lost(self, before: Masks, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Marks the groups that have been pruned, by index."""
        lost = np.zeros(self.count, bool)
        for name, groups in self.layers.items():
            lost[groups[before[name] & ~after[name]]] = True
        return lost

    def _silence(self, masks: Masks, lost: np.ndarray) -> Masks:
        """Returns the masks without the weights that make or read the groups."""
        new = {name: mask.copy() for name, mask in masks.items()}
        for slices in self.slices:
            mask = np.moveaxis(new[slices.weight], slices.axis, 0)
            mask[lost[slices.groups]] = False
        return Masks(new)

    def _sum(self, slices: Slices, array: np.ndarray) -> np.ndarray:
        """Returns the sum over the slices of each group."""
        rows = np.moveaxis(array, slices.axis, 0).reshape(len(slices.groups), -1)
        return np.bincount(slices.groups, rows.sum(axis=1, dtype=float), self.count)


def find_units(role: str, model: keras.Model, masks: Masks) -> Units:
    """Returns the filters of a masked model.

    Args:
        role: see `Units`.
        model: the masked model.
        masks: the masks of the model that may change.

    Raises:
        ValueError: if the model is not masked, is a subclassed model, or has no filters
            to prune.
    """
    check_followed(model)
    return units_of(Graph(model, rule_for), role, masks)


def units_of(graph: Graph, role: str, masks: Masks) -> Units:
    """Returns the filters of a model's graph; see `find_units` for the rest.

    The graph may be that of the model without its masks.
    """
    slices: list[Slices] = []
    unmasked: dict[str, list[np.ndarray]] = {}
    shifts: dict[str, np.ndarray] = {}
    for rule in graph.rules.values():
        path, call = graph.name(rule.layer), rule.calls[0]
        shifts |= {
            f"{path}/{name}": graph.groups[call.outputs[0].atoms]
            for name in _shifts(rule)
        }
        found: list[tuple[str, int | None, np.ndarray, str]] = []
        is_read_by_masks = False
        if isinstance(rule, Linear):
            # A separable convolution reads with two kernels, one of which has no mask.
            is_read_by_masks = any(
                axes[0] is not None and f"{path}/{name}" in masks
                for name, axes in rule.axes.items()
            )
            reads, makes = (t.atoms for t in (call.inputs[0], call.outputs[0]))
            for name, (axis_in, axis_out) in rule.axes.items():
                found.append((name, axis_in, reads, "channel"))
                found.append((name, axis_out, makes, "filter"))
        elif isinstance(rule, Grouped) and f"{path}/kernel" in masks:
            both = call.inputs[0], call.outputs[0]
            for tensor, axis in zip(both, rule.axes["kernel"], strict=True):
                found.append(("kernel", axis, tensor.atoms, ""))
        for name, axis, atoms, kind in found:
            if axis is None:
                continue
            groups = graph.groups[atoms]
            weight = f"{path}/{name}"
            if weight in masks:
                # Depthwise kernels make several channels from each input.
                times = masks[weight].shape[axis] // len(groups)
                slices.append(Slices(weight, axis, np.repeat(groups, times), kind))
            elif not is_read_by_masks:
                unmasked.setdefault(path, []).append(groups)
    return Units(
        role,
        layers_of(graph, masks),
        slices,
        {path: np.concatenate(groups) for path, groups in unmasked.items()},
        shifts,
        int(graph.groups.max(initial=-1)) + 1,
    )


def layers_of(graph: Graph, masks: Masks) -> dict[str, np.ndarray]:
    """Returns the groups that can be pruned, by the masked layers that make them.

    Raises:
        NoFilters: if there are none.
    """
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
        # A path occurs several times if a Reshape ties units of a layer.
        if not fixed[number] and all(prunable[path] for path in paths):
            layers.setdefault(tuple(paths), []).append(number)
    # A layer keeps one of its filters anyway, so that one filter cannot be pruned.
    layers = {paths: numbers for paths, numbers in layers.items() if len(numbers) > 1}
    if not layers:
        raise NoFilters(
            f"Model '{graph.model.name}' has no filters or units that can be pruned: "
            "none of a masked layer that the model does not return and that no layer "
            "without a rule reads. "
            + listed("What keeps all channels that it reads", graph.blocks())
        )
    named: dict[str, np.ndarray] = {}
    for path_tuple, numbers in layers.items():
        name = "+".join(dict.fromkeys(path_tuple))
        while name in named:
            name += "'"
        named[name] = np.array(numbers)
    return named


def listed(title: str, lines: Sequence[str], most: int = 5) -> str:
    """Returns the first few lines under a title, or nothing if there are none."""
    more = [f"… and {len(lines) - most} more"] * (len(lines) > most)
    return "\n  ".join([f"{title}:", *lines[:most], *more]) if lines else ""


def _shifts(rule: Rule) -> list[str]:
    """Returns the names of the weights that shift or scale a layer's channels."""
    names: tuple[str, ...] = ()
    if isinstance(rule, Linear | Grouped):
        names = ("bias",)
    elif isinstance(rule.layer, NORMALISATIONS):
        names = ("gamma", "beta")
    own = {weight.name for weight in getattr(rule.layer, "weights", ())}
    return [name for name in names if name in own]


def _with_best(scores: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Returns the scores of a layer's filters with the best raised to infinity."""
    scores = np.array(scores, float)
    if alive.any() and not np.isnan(scores).any():
        scores[np.argmax(np.where(alive, scores, -np.inf))] = np.inf
    return scores
