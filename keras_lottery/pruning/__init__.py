"""Pruning a snapshot, and pruning a model once."""

from keras_lottery.pruning.arguments import (
    check_by_layer,
    chosen,
    default_allocation,
    of_network,
    repairer,
)
from keras_lottery.pruning.model import masks_after, prune, rehearse
from keras_lottery.pruning.snapshot import prune_snapshot, repaired_snapshot, scored
from keras_lottery.tickets.allocation.layerwise import Sparsity

__all__ = [
    "Sparsity",
    "check_by_layer",
    "chosen",
    "default_allocation",
    "masks_after",
    "of_network",
    "prune",
    "prune_snapshot",
    "rehearse",
    "repaired_snapshot",
    "repairer",
    "scored",
]
