"""Removes for real what masks have made dead, and prunes whole units and filters."""

from keras_lottery.structured.filter_criteria import Filters
from keras_lottery.structured.filters import (
    filter_masks,
    prune_filters,
    scores_of_filters,
)
from keras_lottery.structured.layer_rules import register_rule
from keras_lottery.structured.removal import CompactReport, compact
from keras_lottery.structured.rules import (
    Concatenation,
    Depthwise,
    Linear,
    Merge,
    PerChannel,
    Product,
    Regrouping,
    Rule,
)
from keras_lottery.structured.scratch import Start, multiply_adds, scratch
from keras_lottery.structured.units import Units, find_units

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
