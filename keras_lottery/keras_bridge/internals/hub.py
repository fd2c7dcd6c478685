"""The blocks of keras-hub's decoders, called on symbolic tensors.

Everything here was seen on keras-hub 0.32, which is not imported.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_lottery.keras_bridge.internals.patches import overridden

BLOCKS = (
    "layers.modeling.transformer_decoder.TransformerDecoder",
    "models.gemma.gemma_decoder_block.GemmaDecoderBlock",
    "models.llama.llama_decoder.LlamaTransformerDecoder",
)
"""The blocks whose masks are known. Those of others may be of another form."""


def place_of(kind: type) -> str:
    """Returns the place of a class in `keras_hub.src`, or the whole path of others.

    >>> place_of(keras.layers.Dense)
    'keras.src.layers.core.dense.Dense'
    """
    return f"{kind.__module__}.{kind.__name__}".removeprefix("keras_hub.src.")


@contextlib.contextmanager
def called_on_symbols(
    block: type, attention: Iterable[Any], tensors: Sequence[Any]
) -> Iterator[None]:
    """Inside, blocks of a class take symbolic tensors of any length.

    `compute_causal_mask` of keras-hub's modules. Without it, blocks ask for the length
    of the text, which is `None` in a graph.

    Args:
        block: the class of a block; one that is not in `BLOCKS` is not affected.
        attention: the layers inside of keras-hub's `CachedMultiHeadAttention`. It
            inherits a `compute_output_spec` that does not know the arguments of its
            `call`.
        tensors: the symbolic tensors that the block reads, the sequence first.
    """
    with contextlib.ExitStack() as patches:
        if place_of(block) in BLOCKS:
            module, mask = sys.modules[block.__module__], partial(_causal_mask, tensors)
            patches.enter_context(overridden(module, "compute_causal_mask", mask))
        for layer in attention:
            how = overridden(layer, "compute_output_spec", _like_query)
            patches.enter_context(how)
        yield


def _causal_mask(tensors: Sequence[Any], *_: Any, **__: Any) -> Any:
    """Returns which positions (last axis) each position sees, for any length."""
    first = tensors[0]
    if len(tensors) == 2:
        # A mask of padding has the same length, and no channels.
        first = min(tensors, key=lambda tensor: len(tensor.shape))
    row = first if len(first.shape) == 2 else first[..., 0]
    places = ops.cumsum(ops.ones_like(row, dtype="int32"), axis=1)
    return ops.expand_dims(places, 2) >= ops.expand_dims(places, 1)


def _like_query(query: Any, *_: Any, **__: Any) -> Any:
    return keras.KerasTensor(query.shape, query.dtype)
