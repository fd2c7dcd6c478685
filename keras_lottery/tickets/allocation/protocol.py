"""The interface of an allocation."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.names import check_names, included
from keras_lottery.tickets.allocation.ranking import Scores

Function = Callable[[Scores, Masks, float], Masks]


class Allocation(ABC):
    """Decides how many weights each layer keeps, and which.

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
        """Returns the masks at a sparsity.

        Args:
            scores: an array for each name in `masks`, of its shape; larger means keep.
            masks: the weights that are left now. Pruned weights stay pruned.
            sparsity: the share of all the weights in `masks` that are pruned
                afterwards, including those of excluded layers.
        """

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        """Returns the network's sparsity if the layers not excluded have `sparsity`.

        Schedules that follow a rate use it; a list of sparsities already states those
        of the network.
        """
        names = included(masks, self.exclude)
        return sparsity * sum(masks[name].size for name in names) / masks.size

    def leaving_out(self, patterns: Sequence[str]) -> "Allocation":
        """Returns the same allocation with these patterns as `exclude`."""
        return dataclasses.replace(self, exclude=patterns)  # type: ignore[type-var]


class FromFunction(Allocation):
    """A plain function as an allocation that excludes no layer.

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
        """Returns itself: the function alone decides which layers it prunes."""
        return self


AllocationLike = str | Allocation | Function
"""What can be passed as an allocation."""


def complete(allocation: Allocation | Function) -> Allocation:
    """Returns the allocation, or wraps a plain function as one."""
    if isinstance(allocation, Allocation):
        return allocation
    return FromFunction(allocation)
