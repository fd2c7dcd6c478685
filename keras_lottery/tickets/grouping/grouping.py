"""What a grouping is, and what it makes of an allocation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Allocation, Scores


def _same(sparsity: float) -> float:
    """Groups that are counted come to any sparsity, to within half of one."""
    return sparsity


@dataclass(frozen=True)
class Groups:
    """Groups of weights, as an allocation sees them.

    Args:
        scores: what each is worth.
        masks: which are left; a sparsity is a share of these.
        unfold: makes masks of weights of the groups that the allocation keeps.
        nearest: the sparsity that groups come nearest to the one asked for.
    """

    scores: Scores
    masks: Masks
    unfold: Callable[[Masks], Masks]
    nearest: Callable[[float], float] = _same


class Grouping(ABC):
    """What is pruned together: groups of weights that are kept or pruned as a whole.

    A subclass needs `fold` and `rearrange`; the rest is for groups that do not count by
    their weights, or have more than weights.
    """

    @abstractmethod
    def fold(self, scores: Scores, masks: Masks) -> Groups:
        """The groups of what is left, with scores made of those of their weights.

        Args:
            scores: an array for each name in `masks`, of its shape, or for each of
                `left(masks)`, by a criterion of groups.
            masks: the weights that are left. What is pruned stays pruned, and its
                scores have no say.
        """

    @abstractmethod
    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        """As many groups in each layer, with as many weights each: others of them.

        Args:
            masks: what is kept now.
            preference: scores as `fold` takes them; the groups of the largest are kept.
            alive: the weights that may be kept, at least as many.
        """

    def left(self, masks: Masks) -> Masks:
        """Which groups masks leave, by name: what a sparsity is a share of."""
        return masks

    def idle(self, before: Masks, after: Masks) -> Mapping[str, np.ndarray]:
        """What of other variables serves none but groups that pruning took, by name.

        Such as the bias of a filter. It becomes zero with them.

        Args:
            before, after: the masks before and after.
        """
        return {}

    def shuffle(self, masks: Masks, rng: np.random.Generator) -> Masks:
        """As many groups in each layer, at random."""
        preference = {name: rng.random(mask.shape) for name, mask in masks.items()}
        dense = Masks.dense({name: mask.shape for name, mask in masks.items()})
        return self.rearrange(masks, preference, dense)


@dataclass(frozen=True)
class Grouped(Allocation):
    """An allocation of groups, which does wherever an allocation does.

    Args:
        allocation: which layers the groups are taken from.
        grouping: what a group is.

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
        """That of the allocation."""
        return self.allocation.exclude

    def leaving_out(self, patterns: Sequence[str]) -> Allocation:
        return replace(self, allocation=self.allocation.leaving_out(patterns))

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        return self.allocation.total_sparsity(sparsity, self.grouping.left(masks))
