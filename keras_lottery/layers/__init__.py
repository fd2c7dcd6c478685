"""Masked Keras layers, and models made of them."""

from keras_lottery.layers.convert import is_masked, mask_model, strip_masks
from keras_lottery.layers.masked import (
    MASKED_LAYERS,
    Masked,
    MaskedConv1D,
    MaskedConv2D,
    MaskedDense,
    MaskedDepthwiseConv2D,
    MaskedSeparableConv2D,
    premasked,
)
from keras_lottery.layers.names import named_masks, named_variables, walk
from keras_lottery.layers.redraw import redraw
from keras_lottery.layers.state import (
    State,
    get_masks,
    get_sparsity,
    get_state,
    set_masks,
    set_state,
    sparsity_summary,
)

__all__ = [
    "MASKED_LAYERS",
    "Masked",
    "MaskedConv1D",
    "MaskedConv2D",
    "MaskedDense",
    "MaskedDepthwiseConv2D",
    "MaskedSeparableConv2D",
    "State",
    "get_masks",
    "get_sparsity",
    "get_state",
    "is_masked",
    "mask_model",
    "named_masks",
    "named_variables",
    "premasked",
    "redraw",
    "set_masks",
    "set_state",
    "sparsity_summary",
    "strip_masks",
    "walk",
]
