"""What a repair is: a function of a snapshot and masks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.tickets.snapshot import Snapshot

Function = Callable[[Snapshot, Masks], State]


class Repair(ABC):
    """New values for the weights that masks leave of a snapshot.

    Wherever a repair is expected, a plain function `(snapshot, masks) -> weights` can
    be passed as well.
    """

    @abstractmethod
    def __call__(self, snapshot: Snapshot, masks: Masks) -> State:
        """The new values of the variables that change, by name.

        Args:
            snapshot: what was pruned: `final` has the weights before.
            masks: what is left of it.
        """

    def with_masks(self, snapshot: Snapshot, masks: Masks) -> tuple[State, Masks]:
        """The same, and the masks: others, of as many weights, if it chooses them."""
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
"""What may be given for a repair."""


def complete(repair: Any) -> Repair:
    """The repair, or one that is made of a plain function."""
    return repair if isinstance(repair, Repair) else FromFunction(repair)
