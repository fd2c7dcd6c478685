"""What is pruned together: `granularity=`.

A grouping folds the scores of weights into scores of groups, and unfolds the groups
that an allocation keeps into masks of weights. To add a grouping, write a subclass of
`Grouping` in a file of its own and add a line to `GROUPINGS`. A grouping that reaches
over several layers is built from a model; it belongs in `structured/` and is registered
there.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from keras_lottery import checks
from keras_lottery.registry import Registry
from keras_lottery.tickets.grouping.blocks import (
    Blocks,
    Columns,
    Inside,
    InsideWeights,
    NOfM,
)
from keras_lottery.tickets.grouping.by_layer import ByLayer
from keras_lottery.tickets.grouping.grouping import Grouped, Grouping, Groups
from keras_lottery.tickets.grouping.kind import Kind
from keras_lottery.tickets.grouping.weights import Weights

__all__ = [
    "GROUPINGS",
    "Blocks",
    "ByLayer",
    "Columns",
    "Granularity",
    "Grouped",
    "Grouping",
    "Groups",
    "InsideWeights",
    "Kind",
    "NOfM",
    "Weights",
    "get",
    "register",
]

Granularity = str | tuple[int, int] | Mapping[str, str | tuple[int, int]]
"""The types of `granularity=`."""

GROUPINGS: Registry[Kind] = Registry(
    "granularity",
    "'block_1x4' (outputs x inputs), a pair (inputs, outputs), 'column', 'N:M' such as "
    "'2:4', or one of these by pattern of layers",
    {"weight": Kind(lambda model, masks: Weights())},
    kind=Kind,
)
"""Kinds of groupings by name."""

register = GROUPINGS.register


def within(grouping: Grouping, names: Collection[str]) -> Mapping[str, Grouping]:
    """Returns the grouping within each weight, by name; none if it spans layers."""
    if isinstance(grouping, Weights):
        return dict.fromkeys(names, grouping)
    if not isinstance(grouping, Inside):
        return {}
    return {
        name: Weights() if inside == Blocks(1, 1) else inside
        for name, inside in grouping.within(names).items()
    }


def get(granularity: Any) -> Kind:
    """Returns the kind of grouping that a granularity stands for.

    - `"weight"`: single weights.
    - `"block_1x4"`, in LiteRT's notation: one output by four consecutive inputs. Other
      sizes are `"block_OUTxIN"`.
    - `(inputs, outputs)`: the same as a pair, in the order of a Keras kernel:
      `"block_1x4"` is `(4, 1)`.
    - `"column"`: all weights of one input of a layer; in a convolution, one position of
      the kernel in one channel of its input.
    - `"N:M"`, such as `"2:4"`: N of M consecutive inputs of an output stay.
    - `"filter"` and `"channel"`: whole filters and units, over several layers, scored
      by the weights that make them or that read them.
    - `"head"`: whole heads of attention layers.
    - A mapping from patterns of layers or weights to any of the above except whole
      filters, channels and heads: `{"conv*": "2:4", "head": "weight"}`. The first match
      counts, and weights that match no pattern are pruned one by one.

    Raises:
        ValueError: if it is none of these.

    Example:

    >>> get("block_1x4").of(None, None)
    Blocks(inputs=4, outputs=1)
    """
    grouping = _by_layer(granularity) or _parsed(granularity)
    if grouping:
        return Kind(lambda model, masks: grouping)
    return GROUPINGS.look_up(granularity)


def _by_layer(granularity: Any) -> Grouping | None:
    """Returns the grouping for a mapping of patterns, or None."""
    if not isinstance(granularity, Mapping) or not granularity:
        return None
    checks.names("granularity", granularity, "patterns of layers or weights")
    groupings = {}
    for pattern, each in granularity.items():
        inside = _parsed(each)
        if each == "weight":
            inside = Blocks(1, 1)
        if not isinstance(inside, InsideWeights):
            checks.refuse(
                f"granularity[{pattern!r}]",
                "'weight', 'block_1x4' (outputs x inputs), a pair (inputs, outputs), "
                "'column', or 'N:M' such as '2:4'",
                each,
                "Whole filters and channels reach over several layers.",
            )
        groupings[pattern] = inside
    return ByLayer(groupings)


def _parsed(granularity: Any) -> Grouping | None:
    """Returns blocks or N:M, whose sizes are part of their names, or None."""
    text = granularity if isinstance(granularity, str) else ""
    if text == "column":
        return Columns()
    if match := re.fullmatch(r"block_([1-9]\d*)x([1-9]\d*)", text):
        return Blocks(inputs=int(match[2]), outputs=int(match[1]))
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
    if match and int(match[1]) < int(match[2]):
        return NOfM(int(match[1]), int(match[2]))
    if (
        isinstance(granularity, tuple | list)
        and len(granularity) == 2
        and all(isinstance(side, int) and side > 0 for side in granularity)
    ):
        return Blocks(*granularity)
    return None
