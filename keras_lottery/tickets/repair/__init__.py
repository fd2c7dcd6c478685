"""Weights for a mask, without training: `(snapshot, masks) -> weights`.

A repair is a function of a snapshot, which has the weights before pruning and the
inputs of each layer, and the masks that pruning left. It returns new values for some of
the model's variables, by name: zero where the masks prune.

A new one is a function, or a subclass of `ByLayer` that solves one layer, in a file of
its own, and a line in `REPAIRS`.
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
"""What repairs where the criterion of a name was asked for, and no repair."""

KINDS: list[type[Repair]] = [ADMM, LeastSquares, SparseGPT]
"""What a stored search may name."""

get = REPAIRS.look_up
register = REPAIRS.register
