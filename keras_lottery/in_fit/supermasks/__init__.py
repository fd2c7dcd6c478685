"""Learned masks: training which weights to keep, and none of the weights."""

from keras_lottery.in_fit.supermasks.learn import learn_masks, learned_ticket
from keras_lottery.in_fit.supermasks.model import Supermask

__all__ = ["Supermask", "learn_masks", "learned_ticket"]
