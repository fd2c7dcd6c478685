"""Groups inside one weight: blocks, columns, and N of every M.

A weight is treated as a matrix of inputs by outputs: its last axis is the outputs, and
all other axes together are the inputs. The kernel of a Dense layer already is such a
matrix; that of a convolution becomes (height · width · inputs, outputs), in which the
channels of a pixel are adjacent. (The last axis of a transposed convolution is the
inputs, and that of a depthwise one the multiplier; blocks follow the array all the
same.) If the block size does not divide the matrix, the last block of a row or column
is smaller, and its weights are counted as they are.

The scores of a group's weights are averaged, and the allocation sees that mean as the
score of each of them. A group of which the allocation would keep a part is kept or
pruned as a whole; groups of which it would keep the largest part are kept first. The
number of weights left then differs from the allocation's by at most half a group in the
network, and by at most one group in a layer. Pruned weights stay pruned: a group that
lost some of its weights earlier consists of the rest.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Scores, kept_after
from keras_lottery.tickets.allocation.names import check_scores
from keras_lottery.tickets.grouping.grouping import Grouping, Groups


class Inside(Grouping):
    """Groups that each lie inside one weight and are counted by their weights.

    A subclass defines the groups within each weight.
    """

    @abstractmethod
    def within(self, names: Collection[str]) -> "Mapping[str, InsideWeights]":
        """Returns the grouping within each weight, by name."""

    def fold(self, scores: Scores, masks: Masks) -> Groups:
        check_scores(scores, masks)
        layers = [
            _Layer(inside, name, np.asarray(scores[name]), masks[name])
            for name, inside in self.within(masks).items()
        ]
        return Groups(
            {layer.name: layer.scores for layer in layers},
            masks,
            partial(self._unfold, layers, masks.size),
            partial(self._nearest, layers, masks),
        )

    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        return Masks(
            {
                name: _rearranged(
                    inside.label(masks[name].shape),
                    masks[name],
                    np.asarray(preference[name], float),
                    alive[name],
                )
                for name, inside in self.within(masks).items()
            }
        )

    def _nearest(self, layers: "list[_Layer]", masks: Masks, sparsity: float) -> float:
        keep = kept_after(masks, sparsity)
        if masks.kept < keep <= masks.kept + _largest(layers) / 2:
            return masks.sparsity  # as near as the groups came before
        self._check(sparsity)
        return sparsity

    def _check(self, sparsity: float) -> None:
        """Raises ValueError if these groups cannot have such a sparsity."""

    def _unfold(self, layers: "list[_Layer]", size: int, asked: Masks) -> Masks:
        chosen = _whole([layer.kept(asked[layer.name]) for layer in layers], layers)
        new = Masks(
            {
                layer.name: layer.mask(kept)
                for layer, kept in zip(layers, chosen, strict=True)
            }
        )
        most = _largest(layers)
        more = sum(
            layer.grouping._beyond(layer, int(np.count_nonzero(asked[layer.name])))
            for layer in layers
        )
        least = sum(int(np.count_nonzero(layer.fixed)) for layer in layers)
        near = max(asked.kept + more, least)
        if not new.kept:
            raise ValueError(
                f"No group of up to {most} weights would be left: only {asked.kept} of "
                f"{size} weights were to be kept. Lower the sparsity, or choose "
                f"smaller groups. Received: {self!r}"
            )
        if abs(new.kept - near) > most / 2:
            raise ValueError(
                f"{self!r} cannot leave {asked.kept} of {size} weights in the layers "
                f"from which the allocation takes them, but it can leave {new.kept}. "
                f"Pass sparsity={1 - new.kept / size:.4f}, which is that many, or a "
                "sparsity for each layer, such as sparsity={'conv*': 0.5, 'dense*': "
                "0.8}, or choose allocation='global'."
            )
        return new


class InsideWeights(Inside):
    """The same groups within each weight.

    A subclass defines which group each entry belongs to, and which entries are never
    pruned.
    """

    @abstractmethod
    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the index of each entry's group, for a weight of the given shape."""

    def fixed(self, score: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Marks the entries that are never pruned: none by default."""
        return np.zeros(alive.shape, bool)

    def within(self, names: Collection[str]) -> "Mapping[str, InsideWeights]":
        return dict.fromkeys(names, self)

    def _beyond(self, layer: "_Layer", asked: int) -> int:
        """Returns how many more weights than asked a layer may keep."""
        return 0


@dataclass(frozen=True)
class Blocks(InsideWeights):
    """Rectangular blocks of inputs by outputs.

    Reference:
        Mao et al. 2017, "Exploring the granularity of sparsity in convolutional neural
        networks".

    Example:

    >>> Blocks(2, 1).label((4, 3))
    array([[0, 1, 2],
           [0, 1, 2],
           [3, 4, 5],
           [3, 4, 5]])
    """

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        checks.count("inputs", self.inputs, 1)
        checks.count("outputs", self.outputs, 1)

    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        rows, columns = _matrix(shape)
        blocks = -(-columns // self.outputs)
        row = np.arange(rows) // self.inputs * blocks
        return np.add.outer(row, np.arange(columns) // self.outputs).reshape(shape)


@dataclass(frozen=True)
class Columns(InsideWeights):
    """All weights of one input; in a convolution, of one position in one channel.

    The name comes from the literature on structured pruning, where the rows of the
    matrix are the outputs. A matrix product that reads inputs or patches can skip the
    pruned columns.

    Reference:
        Wen et al. 2016, "Learning structured sparsity in deep neural networks", section
        3.2 (shapes of filters); Zhang et al. 2018, "StructADMM", section III (columns).

    Example:

    >>> Columns().label((3, 2))
    array([[0, 0],
           [1, 1],
           [2, 2]])
    """

    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        rows, columns = _matrix(shape)
        return np.repeat(np.arange(rows), columns).reshape(shape)


@dataclass(frozen=True)
class NOfM(InsideWeights):
    """Keeps N of every M consecutive inputs of an output; the others form a group.

    The highest sparsity is 1 - N/M, or the nearest one that is possible: if the last
    block has fewer than M inputs, the same share of them stays, rounded up. An
    allocation that gives each layer its own sparsity prunes such a layer as far as
    possible. Below the highest sparsity, some blocks stay dense.

    Raises:
        ValueError: when called, if the sparsity, or the one that the allocation gives a
            layer, is above 1 - N/M.

    Reference:
        Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural networks
        from scratch".

    Example:

    >>> score = np.array([[3.0], [1.0], [4.0], [2.0]])
    >>> NOfM(2, 4).fixed(score, np.ones((4, 1), bool)).ravel()
    array([ True, False,  True, False])
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        checks.count("n", self.n, 1)
        checks.count("m", self.m, self.n + 1, remedy="It is larger than `n`.")

    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        return Blocks(self.m, 1).label(shape)

    def fixed(self, score: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Marks the N largest scores of each block; ties go to the first.

        >>> NOfM(2, 4).fixed(np.arange(7.0)[:, None], np.ones((7, 1), bool)).ravel()
        array([False, False,  True,  True, False,  True,  True])
        """
        rows, columns = _matrix(alive.shape)
        blocks = -(-rows // self.m)

        def stack(array: np.ndarray) -> np.ndarray:
            """Returns the blocks, padded with zeros: (blocks, m, outputs)."""
            matrix = array.reshape(rows, columns)
            filled = np.pad(matrix, ((0, blocks * self.m - rows), (0, 0)))
            return filled.reshape(blocks, self.m, columns)

        order = np.lexsort((-stack(score * 1.0), ~stack(alive)), axis=1)
        sizes = np.minimum(rows - self.m * np.arange(blocks), self.m)
        most = -(-sizes * self.n // self.m)
        marks = np.argsort(order, axis=1) < most[:, np.newaxis, np.newaxis]
        return marks.reshape(-1, columns)[:rows].reshape(alive.shape) & alive

    def _check(self, sparsity: float) -> None:
        highest = 1 - self.n / self.m
        if sparsity > highest + 1e-9:
            raise ValueError(
                f"Expected a sparsity of at most {highest:.4g}: granularity="
                f"'{self.n}:{self.m}' leaves {self.n} of {self.m} weights. Received: "
                f"sparsity={sparsity:.4g}"
            )

    def _beyond(self, layer: "_Layer", asked: int) -> int:
        """Returns how many more weights stay because M does not divide the inputs."""
        least = layer.fixed.size * self.n // self.m
        return max(0, int(np.count_nonzero(layer.fixed)) - asked) * (asked >= least)


class _Layer:
    """The groups of one weight."""

    def __init__(
        self, grouping: InsideWeights, name: str, score: np.ndarray, mask: np.ndarray
    ) -> None:
        self.grouping, self.name = grouping, name
        self.labels = grouping.label(mask.shape)
        self.fixed = grouping.fixed(score, mask)
        self.free = mask & ~self.fixed
        self.sizes = self._count(self.free)
        # Pruned weights count: an earlier round may have rounded by their group.
        self.largest = int(self._count(~self.fixed).max(initial=0))
        total = np.bincount(self.labels[self.free], score[self.free], len(self.sizes))
        mean = total / np.maximum(self.sizes, 1)
        kind = np.result_type(score.dtype, "float32")
        # NaN stays NaN, so that the allocation raises an error.
        first = np.where(np.isnan(score), score, np.inf)
        self.scores = np.where(self.fixed, first, mean[self.labels]).astype(kind)

    def kept(self, mask: np.ndarray) -> np.ndarray:
        """Returns how many weights of each group a mask keeps."""
        return self._count(self.free & mask)

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """Returns the mask that keeps the chosen groups."""
        return self.free & chosen[self.labels] | self.fixed

    def _count(self, marks: np.ndarray) -> np.ndarray:
        groups = int(self.labels.max(initial=-1)) + 1
        return np.bincount(self.labels[marks], minlength=groups)


def _largest(layers: list[_Layer]) -> int:
    return max(layer.largest for layer in layers)


def _whole(kept: list[np.ndarray], layers: list[_Layer]) -> list[np.ndarray]:
    """Chooses the groups to keep: those kept whole, and enough of those cut in part.

    The weights that a layer is to keep fill as many of its cut groups as they can. The
    weights left over in all layers fill further groups, at most one per layer.

    Args:
        kept: how many weights of each group the allocation keeps, one array per layer.
        layers: the layers.
    """
    chosen = [
        (k > 0) & (k == layer.sizes) for k, layer in zip(kept, layers, strict=True)
    ]
    over, next_best = 0, []
    for number, (k, layer) in enumerate(zip(kept, layers, strict=True)):
        cut = np.flatnonzero((k > 0) & (k < layer.sizes))
        room, fits = int(k[cut].sum()), True
        for i in cut[np.argsort(-k[cut] / layer.sizes[cut], kind="stable")]:
            size = int(layer.sizes[i])
            if room >= size:
                chosen[number][i] = True
                room -= size
            elif fits:
                fits = False
                next_best.append((-k[i] / size, number, i))
        over += room
    for _, number, i in sorted(next_best):
        size = int(layers[number].sizes[i])
        if over >= size / 2:
            chosen[number][i] = True
            over -= size
    return chosen


def _rearranged(
    labels: np.ndarray, mask: np.ndarray, preference: np.ndarray, alive: np.ndarray
) -> np.ndarray:
    """Returns a mask in which groups of the same size have changed places."""
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


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of a weight."""
    outputs = shape[-1] if shape else 1
    return int(np.prod(shape[:-1], dtype=int)), outputs
