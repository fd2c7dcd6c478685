"""Lottery tickets and pruning for Keras 3: find a winning ticket, study it, ship it."""

from keras_lottery.keras_bridge.backends import check_backend
from keras_lottery.startup import starting

# This comes before the import of Keras, whose error would not name the right remedy.
with starting():
    check_backend()

from keras_lottery.keras_bridge.internals.no_tensorflow import (
    copying_imports_no_tensorflow,
)

copying_imports_no_tensorflow()

from keras_lottery import admm, automatic, data, interop
from keras_lottery.compress import load_compressed, save_compressed
from keras_lottery.engines import Objective
from keras_lottery.files import CorruptedFileError
from keras_lottery.in_fit import callbacks
from keras_lottery.in_fit.callbacks import (
    SET,
    ADMMPruning,
    EarlyBird,
    GradualPruning,
    MovementPruning,
    NeST,
    RigL,
    share_weights,
)
from keras_lottery.in_fit.supermasks import Supermask, learn_masks, learned_ticket
from keras_lottery.keras_bridge import layers
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_sparsity,
    get_state,
    mask_model,
    register_masked,
    set_masks,
    set_state,
    sparsity_summary,
    strip_masks,
)
from keras_lottery.keras_bridge.recalibrate import recalibrate
from keras_lottery.masks import Masks
from keras_lottery.papers import models
from keras_lottery.pruning import prune
from keras_lottery.search import LotteryTicketSearch, Run, merge_runs, results
from keras_lottery.ship import export
from keras_lottery.ship.deploy import benchmark, deploy, plot_files, shrink
from keras_lottery.structured import (
    compact,
    drop_blocks,
    filter_criteria,
    inline,
    narrow,
)
from keras_lottery.study import analysis, plots, report, tensorboard
from keras_lottery.study.transfer import compare_transfer
from keras_lottery.tickets import (
    Snapshot,
    Ticket,
    allocation,
    controls,
    criteria,
    grouping,
    load_ticket,
    repair,
    rewind,
    schedules,
)

__all__ = [
    "ADMMPruning",
    "CorruptedFileError",
    "EarlyBird",
    "GradualPruning",
    "LotteryTicketSearch",
    "Masks",
    "MovementPruning",
    "NeST",
    "Objective",
    "RigL",
    "Run",
    "SET",
    "Snapshot",
    "Supermask",
    "Ticket",
    "admm",
    "allocation",
    "analysis",
    "automatic",
    "benchmark",
    "callbacks",
    "compact",
    "compare_transfer",
    "controls",
    "criteria",
    "data",
    "deploy",
    "drop_blocks",
    "export",
    "filter_criteria",
    "get_masks",
    "get_sparsity",
    "get_state",
    "grouping",
    "inline",
    "interop",
    "layers",
    "learn_masks",
    "learned_ticket",
    "load_compressed",
    "load_ticket",
    "mask_model",
    "merge_runs",
    "models",
    "narrow",
    "plot_files",
    "plots",
    "prune",
    "recalibrate",
    "register_masked",
    "repair",
    "report",
    "results",
    "rewind",
    "save_compressed",
    "schedules",
    "set_masks",
    "set_state",
    "share_weights",
    "shrink",
    "sparsity_summary",
    "strip_masks",
    "tensorboard",
]
