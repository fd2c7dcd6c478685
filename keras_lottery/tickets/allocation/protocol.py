"""What an allocation is: all that may be asked of one."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.names import check_names, included
from keras_lottery.tickets.allocation.ranking import Scores

Function = Callable[[Scores, Masks, float], Masks]


class Allocation(ABC):
    """How many weights each layer keeps, and which.

    A subclass is a frozen dataclass with a `__call__` and, if it can leave layers out,
    a field `exclude`. Wherever an allocation is expected, a plain function
    `(scores, masks, sparsity) -> masks` can be passed as well.

    Attributes:
        exclude: patterns of weights or layers that it leaves as they are.
    """

    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_names(exclude=self.exclude)

    @abstractmethod
    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        """The masks that are left at a sparsity.

        Args:
            scores: an array for each name in `masks`, of its shape; larger is kept.
            masks: what is left now. What is pruned stays pruned.
            sparsity: the share of all of the weights in `masks` to be pruned after
                this, those of layers that are left out included.
        """

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        """The whole network's sparsity if the layers not left out have `sparsity`.

        Schedules of rates ask for it; lists of sparsities are those of the network.
        """
        names = included(masks, self.exclude)
        return sparsity * sum(masks[name].size for name in names) / masks.size

    def leaving_out(self, patterns: Sequence[str]) -> "Allocation":
        """The same allocation, which leaves layers of these patterns as they are."""
        return dataclasses.replace(self, exclude=patterns)  # type: ignore[type-var]


class FromFunction(Allocation):
    """A plain function as an allocation that leaves no layer out.

    Args:
        function: `(scores, masks, sparsity) -> masks`.
    """

    def __init__(self, function: Function) -> None:
        self.function = function

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        return self.function(scores, masks, sparsity)

    def __repr__(self) -> str:
        return repr(self.function)

    def leaving_out(self, patterns: Sequence[str]) -> Allocation:
        """Itself: a function sees by itself to layers that it leaves as they are."""
        return self


AllocationLike = str | Allocation | Function
"""What may be given for an allocation."""


def complete(allocation: Allocation | Function) -> Allocation:
    """The allocation, or one that is made of a plain function."""
    if isinstance(allocation, Allocation):
        return allocation
    return FromFunction(allocation)
