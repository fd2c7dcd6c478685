"""What reaches over several layers: groups of filters and units, and their removal."""

from functools import partial

from keras_lottery.structured import filter_criteria
from keras_lottery.structured.costs import multiply_adds
from keras_lottery.structured.depth import DepthReport, drop_blocks
from keras_lottery.structured.filters import Filters, of_filters
from keras_lottery.structured.greedy import GreedyForward
from keras_lottery.structured.heads import find_heads
from keras_lottery.structured.inline import inline
from keras_lottery.structured.removal import CompactReport, compact
from keras_lottery.structured.rules import (
    Computed,
    Concatenation,
    Grouped,
    Linear,
    Merge,
    Parts,
    PerChannel,
    Product,
    Regrouping,
    Rule,
    register_rule,
)
from keras_lottery.structured.scratch import Baseline, scratch
from keras_lottery.structured.units import Units, find_units
from keras_lottery.structured.width import WidthReport, narrow
from keras_lottery.tickets import grouping, repair
from keras_lottery.tickets.grouping import Kind

__all__ = [
    "Baseline",
    "CompactReport",
    "Computed",
    "Concatenation",
    "DepthReport",
    "Filters",
    "GreedyForward",
    "Grouped",
    "Linear",
    "Merge",
    "Parts",
    "PerChannel",
    "Product",
    "Regrouping",
    "Rule",
    "Units",
    "WidthReport",
    "compact",
    "drop_blocks",
    "find_units",
    "inline",
    "multiply_adds",
    "narrow",
    "of_filters",
    "register_rule",
    "scratch",
]

grouping.GROUPINGS.include(
    {
        "filter": Kind(
            partial(find_units, "filter"),
            across_layers=True,
            criteria=filter_criteria.CRITERIA,
        ),
        "head": Kind(find_heads, across_layers=True),
        "channel": Kind(partial(find_units, "channel"), across_layers=True),
    }
)

_GREEDY = {
    "greedy_forward": GreedyForward("loss"),
    "greedy_imitation": GreedyForward("imitation"),
}
repair.OF_CRITERIA |= _GREEDY
repair.REPAIRS.include(_GREEDY)
repair.KINDS.append(GreedyForward)
