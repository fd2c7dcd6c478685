"""Removes for real what masks have made dead, and prunes whole units and filters."""

from keras_lottery.compact.filter_criteria import Filters
from keras_lottery.compact.filters import (
    filter_masks,
    prune_filters,
    scores_of_filters,
)
from keras_lottery.compact.layer_rules import register_rule
from keras_lottery.compact.removal import CompactReport, compact
from keras_lottery.compact.rules import (
    Concatenation,
    Depthwise,
    Linear,
    Merge,
    PerChannel,
    Product,
    Regrouping,
    Rule,
)
from keras_lottery.compact.scratch import Start, multiply_adds, scratch
from keras_lottery.compact.units import Units, find_units

__all__ = [
    "CompactReport",
    "Concatenation",
    "Depthwise",
    "Filters",
    "Linear",
    "Merge",
    "PerChannel",
    "Product",
    "Regrouping",
    "Rule",
    "Start",
    "Units",
    "compact",
    "filter_masks",
    "find_units",
    "multiply_adds",
    "prune_filters",
    "register_rule",
    "scores_of_filters",
    "scratch",
]
