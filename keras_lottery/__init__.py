"""Lottery tickets and pruning for Keras 3: find a winning ticket, study it, ship it."""

from keras_lottery import (
    allocation,
    analysis,
    callbacks,
    compress,
    controls,
    criteria,
    data,
    deploy,
    export,
    granularity,
    interop,
    layers,
    masks,
    models,
    plots,
    report,
    results,
    rewind,
    schedules,
    tensorboard,
)
from keras_lottery.callbacks import (
    SET,
    ADMMPruning,
    EarlyBird,
    GradualPruning,
    NeST,
    RigL,
)
from keras_lottery.compact import compact, prune_filters
from keras_lottery.layers import (
    get_masks,
    get_sparsity,
    mask_model,
    register_masked,
    set_masks,
    sparsity_summary,
    strip_masks,
)
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune, prune_at_init
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.store import CorruptedFileError
from keras_lottery.supermasks import Supermask, learn_masks, learned_ticket
from keras_lottery.ticket import Snapshot, Ticket, load_ticket
from keras_lottery.transfer import compare_transfer

__all__ = [
    "ADMMPruning",
    "CorruptedFileError",
    "EarlyBird",
    "GradualPruning",
    "LotteryTicketSearch",
    "Masks",
    "NeST",
    "RigL",
    "SET",
    "Snapshot",
    "Supermask",
    "Ticket",
    "allocation",
    "analysis",
    "callbacks",
    "compact",
    "compare_transfer",
    "compress",
    "controls",
    "criteria",
    "data",
    "deploy",
    "export",
    "get_masks",
    "get_sparsity",
    "granularity",
    "interop",
    "layers",
    "learn_masks",
    "learned_ticket",
    "load_ticket",
    "mask_model",
    "masks",
    "models",
    "plots",
    "prune",
    "prune_at_init",
    "prune_filters",
    "register_masked",
    "report",
    "results",
    "rewind",
    "schedules",
    "set_masks",
    "sparsity_summary",
    "strip_masks",
    "tensorboard",
]
