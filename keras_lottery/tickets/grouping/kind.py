"""The kind of a grouping: what is known before there is a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_lottery.tickets.grouping.grouping import Grouping


@dataclass(frozen=True)
class Kind:
    """A kind of grouping, not yet bound to a model.

    Args:
        of: `(model, masks) -> grouping`, for a masked model and the masks that may
            change.
        across_layers: whether its groups reach over several layers. A sparsity is then
            a share of the groups and not of the weights.
        criteria: criteria that score the groups themselves, by name. They take
            precedence over the criteria of weights with the same names.
    """

    of: Callable[[Any, Any], Grouping]
    across_layers: bool = False
    criteria: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_allocation(self) -> str:
        """The name of the default allocation.

        Scores of groups whose size differs between layers cannot be compared.
        """
        return "uniform" if self.across_layers else "global"
