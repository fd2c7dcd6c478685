"""Masks that change inside one `fit`."""

from keras_lottery.callbacks.admm import ADMMPruning
from keras_lottery.callbacks.early_bird import EarlyBird, mask_distance
from keras_lottery.callbacks.gradual import GradualPruning

__all__ = ["ADMMPruning", "EarlyBird", "GradualPruning", "mask_distance"]
