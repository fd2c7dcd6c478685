"""Choices by validation: a criterion for each layer, and how many filters it loses."""

from keras_lottery.automatic.compress import Compressed, auto_compress
from keras_lottery.automatic.criteria import Choice, choose_criteria
from keras_lottery.automatic.rates import anneal, draw

__all__ = ["Choice", "Compressed", "anneal", "auto_compress", "choose_criteria", "draw"]
