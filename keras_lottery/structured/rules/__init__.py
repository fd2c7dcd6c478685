"""How layers treat channels: a class for each way, and a table of layers."""

from keras_lottery.structured.rules import for_layers, for_operations
from keras_lottery.structured.rules.attention import Attention
from keras_lottery.structured.rules.group_normalization import GroupNormalized
from keras_lottery.structured.rules.grouped import Grouped
from keras_lottery.structured.rules.linear import Linear
from keras_lottery.structured.rules.lookup import Lookup
from keras_lottery.structured.rules.merge import Merge, Product
from keras_lottery.structured.rules.parts import Concatenation, Parts
from keras_lottery.structured.rules.per_channel import Computed, PerChannel
from keras_lottery.structured.rules.regrouping import Regrouping
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, weights_of
from keras_lottery.structured.rules.stream import (
    AttentionProjections,
    Normalized,
    given_to,
    stream_rule_for,
)
from keras_lottery.structured.rules.table import register_rule, rule_for

__all__ = [
    "Attention",
    "AttentionProjections",
    "Computed",
    "Concatenation",
    "GroupNormalized",
    "Grouped",
    "Keep",
    "Linear",
    "Lookup",
    "Merge",
    "Normalized",
    "Parts",
    "PerChannel",
    "Product",
    "Regrouping",
    "Rule",
    "Weights",
    "for_layers",
    "for_operations",
    "given_to",
    "register_rule",
    "rule_for",
    "stream_rule_for",
    "weights_of",
]
