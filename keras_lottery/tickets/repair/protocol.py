"""The interface of repairs, which are functions of a snapshot and masks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.tickets.snapshot import Snapshot

Function = Callable[[Snapshot, Masks], State]


class Repair(ABC):
    """Finds new values for the weights of a snapshot that the masks keep.

    Wherever a repair is expected, a plain function `(snapshot, masks) -> weights` can
    be passed as well.
    """

    @abstractmethod
    def __call__(self, snapshot: Snapshot, masks: Masks) -> State:
        """Returns the new values of the variables that change, by name.

        Args:
            snapshot: the network that was pruned; `final` holds its weights before
                pruning.
            masks: the weights that are left.
        """

    def with_masks(self, snapshot: Snapshot, masks: Masks) -> tuple[State, Masks]:
        """Returns the values and the masks, which differ if the repair chooses them."""
        return self(snapshot, masks), masks


class FromFunction(Repair):
    """A plain function as a repair."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def __call__(self, snapshot: Snapshot, masks: Masks) -> State:
        return self.function(snapshot, masks)

    def __repr__(self) -> str:
        return repr(self.function)


RepairLike = str | Repair | Function
"""What can be passed as a repair."""


def complete(repair: Any) -> Repair:
    """Returns the repair, or wraps a plain function as one."""
    return repair if isinstance(repair, Repair) else FromFunction(repair)
