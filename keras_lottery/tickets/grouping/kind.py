"""What is known of a grouping before there is a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_lottery.tickets.grouping.grouping import Grouping


@dataclass(frozen=True)
class Kind:
    """A kind of grouping, of any model.

    Args:
        of: `(model, masks) -> grouping`, for a masked model and those of its masks that
            may change.
        across_layers: whether its groups reach over several layers: a sparsity is then
            a share of the groups, and not of the weights.
        criteria: what scores its groups themselves: functions of a snapshot, by name.
            They are asked before those of weights.
    """

    of: Callable[[Any, Any], Grouping]
    across_layers: bool = False
    criteria: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_allocation(self) -> str:
        """The allocation's name where none is asked for.

        Scores of groups that differ in size, from layer to layer, are no match.
        """
        return "uniform" if self.across_layers else "global"
