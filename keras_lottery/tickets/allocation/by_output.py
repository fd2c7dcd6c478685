"""An allocation that keeps the same number of weights for each output."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.names import check_scores
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores, largest


@dataclass(frozen=True)
class ByOutput(Allocation):
    """Keeps the same number of weights for each output of a layer.

    Another allocation decides how many weights each layer keeps. Within the layer, each
    weight is ranked only against the weights of the same output. The numbers of weights
    that two outputs keep differ by at most one; an output that has fewer weights left
    keeps all of them.

    Args:
        allocation: how many weights each layer keeps.
        outputs: for each weight by name, an array of its shape with the index of the
            output that each entry contributes to. Weights that are not named are ranked
            by the allocation alone.

    Reference:
        Sun et al. 2024, "A simple and effective pruning approach for large language
        models", section 3, "comparison group".

    Example:

    >>> from keras_lottery.tickets.allocation import Uniform
    >>> outputs = {"kernel": np.array([[0, 1], [0, 1], [0, 1], [0, 1]])}
    >>> score = np.array([[9.0, 1.0], [8.0, 2.0], [7.0, 4.0], [6.0, 3.0]])
    >>> masks = Masks.dense({"kernel": (4, 2)})
    >>> allocate = ByOutput(Uniform(), outputs)
    >>> allocate({"kernel": score}, masks, 0.5)["kernel"].astype(int)
    array([[1, 0],
           [1, 0],
           [0, 1],
           [0, 1]])
    """

    allocation: Allocation
    outputs: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """Checks nothing: the allocation has checked `exclude` already."""
        checks.instance("allocation", self.allocation, Allocation, "an `Allocation`")
        checks.instance("outputs", self.outputs, Mapping, "arrays by weight name")

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        kept = self.allocation(scores, masks, sparsity)
        return Masks(
            {
                name: mask
                if name not in self.outputs or np.array_equal(mask, masks[name])
                else _alike(
                    name,
                    np.asarray(scores[name]),
                    masks[name],
                    self.outputs[name],
                    int(np.count_nonzero(mask)),
                )
                for name, mask in kept.items()
            }
        )

    @property
    def exclude(self) -> Sequence[str]:  # type: ignore[override]
        """Same as the allocation's `exclude`."""
        return self.allocation.exclude

    def leaving_out(self, patterns: Sequence[str]) -> Allocation:
        return dataclasses.replace(
            self, allocation=self.allocation.leaving_out(patterns)
        )

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        return self.allocation.total_sparsity(sparsity, masks)


def _alike(
    name: str, score: np.ndarray, alive: np.ndarray, outputs: np.ndarray, keep: int
) -> np.ndarray:
    """Keeps the best weight of each output, then the second best, up to `keep`."""
    score, number = score[alive], outputs[alive]
    order = np.lexsort((-score, number))
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    # Not all outputs can keep a weight of the last rank: the largest scores decide.
    last = np.partition(rank, keep - 1)[keep - 1] if keep else 0
    marks = rank < last
    tied = {name: rank == last}
    marks |= largest({name: score}, tied, keep - int(np.count_nonzero(marks)))[name]
    mask = np.zeros(alive.shape, bool)
    mask[alive] = marks
    return mask
