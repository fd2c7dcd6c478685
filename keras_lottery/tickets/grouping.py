"""What is pruned together: an allocation of single weights becomes one of groups.

A weight is taken as a matrix of inputs by outputs: its last axis is the outputs, all
the others together are the inputs. A Dense kernel is one already; a convolution's is
(height · width · inputs, outputs), in which the channels of a pixel lie side by side.
(Of a transposed convolution the last axis is the inputs, of a depthwise one the
multiplier: blocks follow the array all the same.) Where a block does not divide the
matrix, the last one of a row or column is smaller, and counts by its size.

The scores of a group's weights are averaged, and the allocation is asked with that mean
for each of them. Groups that it would cut live whole or die whole, those first of which
most would be left, so that the number of weights is that of the allocation to within
half a group, and that of a layer to within one. What is pruned stays pruned: a group
that was cut before goes on with what is left of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Allocation, Scores, kept_after
from keras_lottery.tickets.allocation.names import check_scores

Granularity = str | tuple[int, int]

UNITS = ("filter", "channel")
"""Whole units: they reach over several layers, and take the model's graph."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of inputs by outputs.

    >>> Blocks(2, 1).label((4, 3))
    array([[0, 1, 2],
           [0, 1, 2],
           [3, 4, 5],
           [3, 4, 5]])
    """

    inputs: int
    outputs: int

    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        """The number of each weight's block, for a weight of a shape."""
        rows, columns = _matrix(shape)
        blocks = -(-columns // self.outputs)
        row = np.arange(rows) // self.inputs * blocks
        return np.add.outer(row, np.arange(columns) // self.outputs).reshape(shape)

    def fixed(self, score: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """The weights that are never pruned: none."""
        return np.zeros(alive.shape, bool)


@dataclass(frozen=True)
class NOfM:
    """N of every M consecutive inputs of an output stay; the others are a group.

    >>> score = np.array([[3.0], [1.0], [4.0], [2.0]])
    >>> NOfM(2, 4).fixed(score, np.ones((4, 1), bool)).ravel()
    array([ True, False,  True, False])
    """

    n: int
    m: int

    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        """The number of each weight's block, for a weight of a shape."""
        return Blocks(self.m, 1).label(shape)

    def fixed(self, score: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """The N largest of each block; of equals, the first.

        >>> NOfM(2, 4).fixed(np.arange(7.0)[:, None], np.ones((7, 1), bool)).ravel()
        array([False, False,  True,  True, False,  True,  True])
        """
        rows, columns = _matrix(alive.shape)
        blocks = -(-rows // self.m)

        def stack(array: np.ndarray) -> np.ndarray:
            """The blocks, filled up with zeros: (blocks, m, outputs)."""
            matrix = array.reshape(rows, columns)
            filled = np.pad(matrix, ((0, blocks * self.m - rows), (0, 0)))
            return filled.reshape(blocks, self.m, columns)

        order = np.lexsort((-stack(score * 1.0), ~stack(alive)), axis=1)
        sizes = np.minimum(rows - self.m * np.arange(blocks), self.m)
        most = -(-sizes * self.n // self.m)
        marks = np.argsort(order, axis=1) < most[:, np.newaxis, np.newaxis]
        return marks.reshape(-1, columns)[:rows].reshape(alive.shape) & alive


@dataclass(frozen=True)
class Grouped:
    """An allocation of groups, which does wherever an allocation does.

    Args:
        allocation: the allocation of single weights.
        granularity: what a group is:

            - `"block_1x4"`, in LiteRT's words: one output by four consecutive inputs.
              Other sizes are `"block_OUTxIN"`.
            - `(in, out)`: the same as a pair, in the order of a Keras kernel:
              `"block_1x4"` is `(4, 1)`.
            - `"N:M"`, such as `"2:4"`: N of M consecutive inputs of an output stay; of
              fewer at an end the same share, rounded up. 1 - N/M is then the highest
              sparsity (or what comes nearest to it); below it, some blocks are still
              dense.

    Raises:
        ValueError: if the granularity is none of these. When called: what the
            allocation raises; if no group would be left; for N:M, if the sparsity, or
            what the allocation makes of it in a layer, is above 1 - N/M.

    Reference:
        Mao et al. 2017, "Exploring the granularity of sparsity in convolutional neural
        networks"; Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural
        networks from scratch".

    Example:

    >>> from keras_lottery.tickets.allocation import Global
    >>> score = np.array([[9.0, 1.0], [0.0, 2.0], [0.0, 4.0], [5.0, 3.0]])
    >>> masks = Masks.dense({"kernel": (4, 2)})
    >>> Grouped(Global(), (2, 1))({"kernel": score}, masks, 0.5)["kernel"].astype(int)
    array([[1, 0],
           [1, 0],
           [0, 1],
           [0, 1]])
    """

    allocation: Allocation
    granularity: Granularity

    def __post_init__(self) -> None:
        _rule(self.granularity)

    @property
    def total_sparsity(self) -> Callable[[float, Masks], float] | None:
        """That of the allocation, if it has one."""
        return getattr(self.allocation, "total_sparsity", None)

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        rule = _rule(self.granularity)
        groups = [_Groups(rule, n, np.asarray(scores[n]), m) for n, m in masks.items()]
        most = max(group.largest for group in groups)
        keep = kept_after(masks, sparsity)
        if masks.kept < keep <= masks.kept + most / 2:
            return masks  # as near as groups came before
        if isinstance(rule, NOfM):
            sparsity = self._within(rule, groups, masks, sparsity)
        folded = {group.name: group.scores for group in groups}
        asked = self.allocation(folded, masks, sparsity)
        chosen = _whole([group.kept(asked[group.name]) for group in groups], groups)
        new = Masks(
            {g.name: g.mask(kept) for g, kept in zip(groups, chosen, strict=True)}
        )
        if not new.kept:
            raise ValueError(
                f"No group of up to {most} weights would be left. Received: sparsity="
                f"{sparsity}, granularity={self.granularity!r}"
            )
        if abs(new.kept - asked.kept) > most / 2:
            raise ValueError(
                f"granularity={self.granularity!r} cannot leave {asked.kept} of "
                f"{masks.size} weights in the layers that the allocation takes them "
                f"from, but {new.kept}. Received: sparsity={sparsity:.4f}, allocation="
                f"{self.allocation!r}. Lower the sparsity, or take allocation='global'."
            )
        return new

    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        """As many groups in each layer, with as many weights each: others of them.

        Args:
            masks: what is kept now.
            preference: the groups of the largest means are kept; where a group keeps
                some of its weights, the largest of them.
            alive: the weights that may be kept, at least as many.
        """
        rule = _rule(self.granularity)
        return Masks(
            {
                name: _rearranged(
                    rule.label(mask.shape),
                    mask,
                    np.asarray(preference[name], float),
                    alive[name],
                )
                for name, mask in masks.items()
            }
        )

    def _within(
        self, rule: NOfM, groups: "list[_Groups]", masks: Masks, sparsity: float
    ) -> float:
        """The sparsity, or the highest that can be had if blocks do not divide."""
        highest = 1 - rule.n / rule.m
        if sparsity > highest + 1e-9:
            raise ValueError(
                f"Expected a sparsity of at most {highest:.4g}: granularity="
                f"{self.granularity!r} leaves {rule.n} of {rule.m} weights. Received: "
                f"sparsity={sparsity:.4g}"
            )
        least = sum(int(np.count_nonzero(group.fixed)) for group in groups)
        return min(sparsity, 1 - least / masks.size)


class _Groups:
    """The groups of one weight."""

    def __init__(
        self, rule: Blocks | NOfM, name: str, score: np.ndarray, mask: np.ndarray
    ) -> None:
        self.name = name
        self.labels = rule.label(mask.shape)
        self.fixed = rule.fixed(score, mask)
        self.free = mask & ~self.fixed
        self.sizes = self._count(self.free)
        # With what is pruned: it may have been the rest of what a round went by.
        self.largest = int(self._count(~self.fixed).max(initial=0))
        total = np.bincount(self.labels[self.free], score[self.free], len(self.sizes))
        mean = total / np.maximum(self.sizes, 1)
        kind = np.result_type(score.dtype, "float32")
        # NaN stays what it is, for the allocation to refuse.
        first = np.where(np.isnan(score), score, np.inf)
        self.scores = np.where(self.fixed, first, mean[self.labels]).astype(kind)

    def kept(self, mask: np.ndarray) -> np.ndarray:
        """How many weights of each group a mask keeps."""
        return self._count(self.free & mask)

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """The mask that keeps the groups chosen."""
        return self.free & chosen[self.labels] | self.fixed

    def _count(self, marks: np.ndarray) -> np.ndarray:
        groups = int(self.labels.max(initial=-1)) + 1
        return np.bincount(self.labels[marks], minlength=groups)


def _whole(kept: list[np.ndarray], groups: list[_Groups]) -> list[np.ndarray]:
    """Which groups live: all that are kept whole, and as many of those that are cut.

    Args:
        kept: how many weights of each group are to be left.
        groups: the groups.
    """
    cut = [
        (-k[i] / group.sizes[i], number, i)
        for number, (k, group) in enumerate(zip(kept, groups, strict=True))
        for i in np.flatnonzero((k > 0) & (k < group.sizes))
    ]
    chosen = [
        (k > 0) & (k == group.sizes) for k, group in zip(kept, groups, strict=True)
    ]
    room = sum(int(kept[number][i]) for _, number, i in cut)
    for _, number, i in sorted(cut):
        size = int(groups[number].sizes[i])
        if room >= size / 2:
            chosen[number][i] = True
            room -= size
    return chosen


def _rearranged(
    labels: np.ndarray, mask: np.ndarray, preference: np.ndarray, alive: np.ndarray
) -> np.ndarray:
    """A mask in which groups of one size have changed places, as of `rearrange`."""
    labels, order = labels.ravel(), np.argsort(labels, axis=None, kind="stable")
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    new = np.zeros(mask.size, bool)
    for size in np.unique(sizes[sizes > 0]):
        places = order[np.add.outer(starts[sizes == size], np.arange(size))]
        counts = np.sort(mask.ravel()[places].sum(axis=1))[::-1]
        left = alive.ravel()[places]
        wish = np.where(left, preference.ravel()[places], -np.inf)
        total = np.where(left, wish, 0).sum(axis=1)
        mean = total / np.maximum(left.sum(axis=1), 1)
        best = np.lexsort((-mean, -left.sum(axis=1)))
        rank = np.argsort(np.argsort(-wish, axis=1, kind="stable"), axis=1)
        new[places[best]] = rank[best] < counts[:, np.newaxis]
    return new.reshape(mask.shape)


def grouped(allocation: Allocation, granularity: Granularity) -> Allocation:
    """The allocation at a granularity.

    Raises:
        ValueError: if there is no such granularity of an allocation.
    """
    return allocation if granularity == "weight" else Grouped(allocation, granularity)


def check(granularity: Any) -> None:
    """Raises ValueError unless it is a granularity."""
    if granularity not in ("weight", *UNITS):
        _rule(granularity)


def _rule(granularity: Any) -> Blocks | NOfM:
    text = granularity if isinstance(granularity, str) else ""
    if match := re.fullmatch(r"block_([1-9]\d*)x([1-9]\d*)", text):
        return Blocks(inputs=int(match[2]), outputs=int(match[1]))
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
    if match and int(match[1]) < int(match[2]):
        return NOfM(int(match[1]), int(match[2]))
    if (
        isinstance(granularity, tuple | list)
        and len(granularity) == 2
        and all(isinstance(side, int) and side > 0 for side in granularity)
    ):
        return Blocks(*granularity)
    raise ValueError(
        "Expected `granularity` to be 'weight', 'block_1x4' (outputs x inputs), a pair "
        "(inputs, outputs), 'N:M' such as '2:4', 'filter' or 'channel'. Received: "
        f"granularity={granularity!r}"
    )


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a weight."""
    outputs = shape[-1] if shape else 1
    return int(np.prod(shape[:-1], dtype=int)), outputs
