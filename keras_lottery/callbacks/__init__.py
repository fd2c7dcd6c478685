"""Masks that change inside one `fit`."""

from keras_lottery.callbacks.gradual import GradualPruning

__all__ = ["GradualPruning"]
