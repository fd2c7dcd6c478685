"""How many weights each layer keeps, and which: `(scores, masks, sparsity) -> masks`.

`sparsity` is always the share of all the weights in `masks`, including those of
excluded layers. Counts are exact, ties go to the earlier position, and a pruned weight
stays pruned.

To add an allocation, write a subclass of `Allocation` in a file of its own, or a plain
function, and add a line to `ALLOCATIONS`.
"""

from keras_lottery.registry import Registry
from keras_lottery.tickets.allocation.by_output import ByOutput
from keras_lottery.tickets.allocation.counts import keep_by_layer, kept_after
from keras_lottery.tickets.allocation.erdos_renyi import ErdosRenyi
from keras_lottery.tickets.allocation.isomorphic import Isomorphic
from keras_lottery.tickets.allocation.layerwise import Layerwise, Uniform
from keras_lottery.tickets.allocation.network import Global
from keras_lottery.tickets.allocation.outliers import OutlierWeighed
from keras_lottery.tickets.allocation.protocol import (
    Allocation,
    AllocationLike,
    Function,
    complete,
)
from keras_lottery.tickets.allocation.ranking import Scores, largest

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "AllocationLike",
    "ByOutput",
    "ErdosRenyi",
    "Function",
    "Global",
    "Isomorphic",
    "Layerwise",
    "OutlierWeighed",
    "Scores",
    "Uniform",
    "classes",
    "get",
    "keep_by_layer",
    "kept_after",
    "largest",
    "register",
]


ALLOCATIONS: Registry[Allocation] = Registry(
    "allocation",
    "a function (scores, masks, sparsity) -> masks",
    {
        "global": Global(),
        "layerwise": Layerwise(),
        "uniform": Uniform(),
        "erdos_renyi": ErdosRenyi(kernel=False),
        "erk": ErdosRenyi(kernel=True),
        "isomorphic": Isomorphic(),
        "owl": OutlierWeighed(),
    },
    wrap=complete,
)
"""Allocations by name."""

get = ALLOCATIONS.look_up
register = ALLOCATIONS.register


def classes() -> list[type]:
    """The classes of allocations that the settings of a stored search may name."""
    return [type(ALLOCATIONS[name]) for name in ALLOCATIONS.names()]
