"""Weights for a mask, without training: `(snapshot, masks) -> weights`.

A repair is a function of two arguments: a snapshot, which has the weights before
pruning and the inputs of each layer, and the masks that pruning left. It returns new
values for some of the model's variables, by name: zero where the masks prune.

To add a repair, write a function, or a subclass of `ByLayer` that solves one layer, in
a file of its own, and add a line to `REPAIRS`.
"""

from keras_lottery.registry import Registry
from keras_lottery.tickets.repair.admm import ADMM
from keras_lottery.tickets.repair.by_layer import ByLayer
from keras_lottery.tickets.repair.least_squares import LeastSquares
from keras_lottery.tickets.repair.protocol import Repair, RepairLike, complete
from keras_lottery.tickets.repair.sparsegpt import SparseGPT

__all__ = [
    "ADMM",
    "OF_CRITERIA",
    "REPAIRS",
    "ByLayer",
    "LeastSquares",
    "Repair",
    "RepairLike",
    "SparseGPT",
    "get",
    "register",
]

REPAIRS: Registry[Repair] = Registry(
    "repair",
    "a function (snapshot, masks) -> weights",
    {"least_squares": LeastSquares(), "sparsegpt": SparseGPT(), "admm": ADMM()},
    wrap=complete,
)
"""Repairs by name."""

OF_CRITERIA: dict[str, Repair] = {
    "sparsegpt": SparseGPT(choose=True),
    "admm": ADMM(choose=True),
}
"""The default repair of each criterion that includes one, by the repair's name."""

KINDS: list[type[Repair]] = [ADMM, LeastSquares, SparseGPT]
"""The classes of repairs that the settings of a stored search may name."""

get = REPAIRS.look_up
register = REPAIRS.register
