"""Masks that change inside one `fit`, and training that knows of quantisation."""

from keras_lottery.in_fit.callbacks.admm import ADMMPruning
from keras_lottery.in_fit.callbacks.checkpoints import Checkpoints
from keras_lottery.in_fit.callbacks.early_bird import EarlyBird, mask_distance
from keras_lottery.in_fit.callbacks.gradual import GradualPruning
from keras_lottery.in_fit.callbacks.group_lasso import GroupLasso
from keras_lottery.in_fit.callbacks.movement import MovementPruning
from keras_lottery.in_fit.callbacks.nest import NeST
from keras_lottery.in_fit.callbacks.quantization import QuantizationAware
from keras_lottery.in_fit.callbacks.rigl import RigL
from keras_lottery.in_fit.callbacks.set import SET
from keras_lottery.in_fit.callbacks.sharing import SharedWeights, share_weights
from keras_lottery.in_fit.callbacks.soft_filters import SoftFilterPruning

__all__ = [
    "SET",
    "ADMMPruning",
    "Checkpoints",
    "EarlyBird",
    "GradualPruning",
    "GroupLasso",
    "MovementPruning",
    "NeST",
    "QuantizationAware",
    "RigL",
    "SharedWeights",
    "SoftFilterPruning",
    "mask_distance",
    "share_weights",
]
