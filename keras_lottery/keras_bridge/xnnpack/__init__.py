"""The parts of a model that XNNPACK runs sparsely, by XNNPACK's own rules.

On ARM, LiteRT's XNNPACK computes 1x1 convolutions with only the nonzero weights if it
can keep a whole part of the graph channels-first. Such a part starts with a 3x3
convolution of stride 2, which transposes an image of three channels, and ends with
global average pooling. Between them there may only be layers that have a channels-first
kernel. Source: `src/subgraph.c` of XNNPACK, `xnn_check_nchw_compatibility` and
`xnn_subgraph_rewrite_for_nchw`.
"""

from keras_lottery.keras_bridge.xnnpack.parts import (
    FEWEST_ZEROS,
    is_misread,
    parts_of,
    sparse_layers,
    steps_of,
)
from keras_lottery.keras_bridge.xnnpack.roles import (
    can_start,
    fits_but_for_padding,
    padding_of,
    wanted_padding,
)
from keras_lottery.keras_bridge.xnnpack.steps import (
    Part,
    Role,
    Step,
    is_convolution,
    named,
)

__all__ = [
    "FEWEST_ZEROS",
    "Part",
    "Role",
    "Step",
    "can_start",
    "fits_but_for_padding",
    "is_convolution",
    "is_misread",
    "named",
    "padding_of",
    "parts_of",
    "sparse_layers",
    "steps_of",
    "wanted_padding",
]
