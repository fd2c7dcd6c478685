"""The interface of groupings, and allocations that work on groups."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Allocation, Scores


def _same(sparsity: float) -> float:
    """Returns the sparsity itself: counted groups reach any, to within half a group."""
    return sparsity


@dataclass(frozen=True)
class Groups:
    """Groups of weights, as an allocation sees them.

    Args:
        scores: the score of each group.
        masks: the groups that are left; a sparsity is a share of the groups.
        unfold: turns the groups that the allocation keeps into masks of weights.
        nearest: maps the requested sparsity to the nearest one that groups can have.
    """

    scores: Scores
    masks: Masks
    unfold: Callable[[Masks], Masks]
    nearest: Callable[[float], float] = _same


class Grouping(ABC):
    """Defines the groups of weights that are kept or pruned as a whole.

    A subclass needs `fold` and `rearrange`. The other methods are for groups that are
    not counted by their weights, or that contain other variables as well.
    """

    @abstractmethod
    def fold(self, scores: Scores, masks: Masks) -> Groups:
        """Returns the groups of the remaining weights, with scores for the groups.

        Args:
            scores: an array for each name in `masks`, of its shape; or, from a
                criterion that scores groups, for each name in `left(masks)`.
            masks: the weights that are left. Pruned weights stay pruned, and their
                scores are ignored.
        """

    @abstractmethod
    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        """Returns masks that keep other groups, equally many and large in each layer.

        Args:
            masks: the weights that are kept now.
            preference: scores as `fold` takes them; the groups with the largest are
                kept.
            alive: the weights that may be kept, at least as many as `masks` keeps.
        """

    def left(self, masks: Masks) -> Masks:
        """Returns the groups that are left, by name; a sparsity is a share of them."""
        return masks

    def idle(self, before: Masks, after: Masks) -> Mapping[str, np.ndarray]:
        """Marks entries of other variables that only pruned groups use, by name.

        The bias of a pruned filter is one. Such entries become zero with their group.

        Args:
            before, after: the masks before and after.
        """
        return {}

    def shuffle(self, masks: Masks, rng: np.random.Generator) -> Masks:
        """Returns masks that keep as many groups in each layer, chosen at random."""
        preference = {name: rng.random(mask.shape) for name, mask in masks.items()}
        dense = Masks.dense({name: mask.shape for name, mask in masks.items()})
        return self.rearrange(masks, preference, dense)


@dataclass(frozen=True)
class Grouped(Allocation):
    """An allocation that keeps or prunes whole groups.

    Args:
        allocation: decides how many groups each layer keeps.
        grouping: defines the groups.

    Example:

    >>> import keras_lottery as kl
    >>> allocate = Grouped(kl.allocation.Global(), kl.grouping.Blocks(2, 1))
    >>> score = np.array([[9.0, 1.0], [0.0, 2.0], [0.0, 4.0], [5.0, 3.0]])
    >>> masks = Masks.dense({"kernel": (4, 2)})
    >>> allocate({"kernel": score}, masks, sparsity=0.5)["kernel"].astype(int)
    array([[1, 0],
           [1, 0],
           [0, 1],
           [0, 1]])
    """

    allocation: Allocation
    grouping: Grouping

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        groups = self.grouping.fold(scores, masks)
        kept = self.allocation(groups.scores, groups.masks, groups.nearest(sparsity))
        return groups.unfold(kept)

    @property
    def exclude(self) -> Sequence[str]:  # type: ignore[override]
        """Same as the allocation's `exclude`."""
        return self.allocation.exclude

    def leaving_out(self, patterns: Sequence[str]) -> Allocation:
        return replace(self, allocation=self.allocation.leaving_out(patterns))

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        return self.allocation.total_sparsity(sparsity, self.grouping.left(masks))
