"""What `inline` does about keras-hub's decoders, seen in keras-hub 0.32.

A decoder's block makes its causal mask for a length, which a graph does not know. Some
layers inside have no usable `get_config`, so that no file could hold them, or cannot
be rebuilt with fewer heads. Each of these has an equal layer, of Keras or of ours.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_lottery.keras_bridge.internals.hub import called_on_symbols, place_of
from keras_lottery.keras_bridge.internals.layers import computing_in
from keras_lottery.keras_bridge.layers import named_masks, named_variables, walk
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.kinds import MASKED_LAYERS
from keras_lottery.keras_bridge.layers.masked import Masked, mask_layer
from keras_lottery.structured.rotary import RotaryAttention


@contextlib.contextmanager
def takes_symbols(layer: Any, tensors: Sequence[Any]) -> Iterator[None]:
    """Inside, `call` of a decoder's block of keras-hub takes symbolic tensors.

    Args:
        layer: the block. Blocks of others are not affected.
        tensors: the symbolic tensors that it reads, the sequence first.
    """
    attention = [
        inner for _, inner in walk(layer) if _maker(inner) is _attention_of_gpt2
    ]
    with called_on_symbols(class_of(layer), attention, tensors):
        yield


def equal_layer(layer: Any) -> Any:
    """Returns a layer of Keras or of ours that computes the same; `None` for most.

    It has the weights and masks of the given one, and is called by `call_equal`.

    Raises:
        ValueError: if the layer computes what no such layer does.
    """
    make = _maker(layer)
    return None if make is None else make(layer)


def call_equal(
    old: Any, new: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Calls an equal layer with the arguments that the old one is called with.

    Raises:
        ValueError: if the old one is called with a cache.
    """
    bound = inspect.signature(class_of(old).call).bind(old, *args, **kwargs)
    _, first, *_ = bound.arguments.values()  # The first is the layer itself.
    given = {name: x for name, x in bound.arguments.items() if x is not None}
    if "cache" in given:
        raise ValueError("it is called with a cache of keys and values")
    passed: tuple[str, ...] = ()
    if isinstance(new, layers.MultiHeadAttention):
        passed = ("value", "key", "attention_mask", "return_attention_scores")
    elif isinstance(new, RotaryAttention):
        passed = ("attention_mask",)
    return new(first, **{name: given[name] for name in passed if name in given})


def _maker(layer: Any) -> Callable[[Any], Any] | None:
    return EQUALS.get(place_of(class_of(layer)))


def _attention_of_gpt2(layer: Any) -> Any:
    # The config of its own class does not mention masked layers inside.
    config = class_of(layer).get_config(layer)
    new = layers.MultiHeadAttention.from_config(config)
    variables = named_variables(layer)
    shapes = [
        (None, None, variables[f"{part}/kernel"].shape[0])
        for part in ("query", "value", "key")
    ]
    new.build(*shapes)
    return _like(new, layer)


def _attention_of_gemma(layer: Any) -> Any:
    if layer.logit_soft_cap is not None or layer.use_sliding_window_attention:
        raise ValueError(
            "its attention caps its scores or sees a sliding window, as Gemma 2's does"
        )
    if not layer.query_head_dim_normalize:
        raise ValueError("its scores are not divided by the root of a head's width")
    return _rotary(layer, layer.rope_layer, (1, 0, 2))


def _attention_of_llama(layer: Any) -> Any:
    return _rotary(layer, layer.rotary_embedding_layer, (0, 1, 2))


def _rotary(layer: Any, rotation: Any, axes: tuple[int, ...]) -> Any:
    """Returns the attention of a decoder as a `RotaryAttention`.

    Args:
        layer: the attention.
        rotation: its layer that rotates queries and keys.
        axes: how its kernels of queries, keys and values are transposed to become
            (width, heads, width of a head).
    """
    if layer.dropout:
        raise ValueError("its attention has dropout")
    kernel = named_variables(layer)["query/kernel"]
    width, heads, head_dim = (kernel.shape[axis] for axis in axes)
    projection = dict(walk(layer))["query"]
    new = RotaryAttention(
        head_dim,
        heads,
        layer.num_key_value_heads,
        _frequencies(rotation, head_dim),
        kernel_initializer=projection.kernel_initializer.clone(),
        name=layer.name,
        dtype=layer.dtype_policy,
    )
    new.build((None, None, width))
    return _like(
        new,
        layer,
        lambda name, array: (
            array if name.startswith("attention_output") else array.transpose(axes)
        ),
    )


def _frequencies(rotation: Any, width: int) -> list[float]:
    """Returns by how many radians a position rotates each pair of a head's entries."""
    half = width // 2
    x = np.zeros((1, 2, 1, width), "float32")
    x[..., :half] = 1
    with computing_in(rotation, keras.DTypePolicy("float32")):
        cos, sin = np.split(ops.convert_to_numpy(rotation(x))[0, :, 0], 2, axis=-1)
    if not np.allclose(cos**2 + sin**2, 1, atol=1e-5) or not np.allclose(sin[0], 0):
        raise ValueError("its positions do more than rotate queries and keys")
    return np.arctan2(sin[1], cos[1]).tolist()


def _normalization_of_llama(layer: Any) -> Any:
    return _normalization(layer, 0)


def _normalization_of_gemma(layer: Any) -> Any:
    # It multiplies by one more than its scale.
    return _normalization(layer, 1)


def _normalization(layer: Any, more: float) -> Any:
    new = layers.RMSNormalization(
        epsilon=layer.epsilon, name=layer.name, dtype=layer.dtype_policy
    )
    new.build((None, None, *layer.scale.shape))
    return _like(new, layer, lambda _, array: array + more)


EQUALS: dict[str, Callable[[Any], Any]] = {
    "layers.modeling.cached_multi_head_attention.CachedMultiHeadAttention": (
        _attention_of_gpt2
    ),
    "models.gemma.gemma_attention.CachedGemmaAttention": _attention_of_gemma,
    "models.gemma.rms_normalization.RMSNormalization": _normalization_of_gemma,
    "models.llama.llama_attention.LlamaAttention": _attention_of_llama,
    "models.llama.llama_layernorm.LlamaLayerNorm": _normalization_of_llama,
}
"""Makers of equal layers, by the place of a class in `keras_hub.src`."""


def _like(
    new: Any,
    old: Any,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda _, array: array,
) -> Any:
    """Gives a built layer the weights, masks and settings of another one.

    Args:
        new: the layer, which has weights of the same names.
        old: the layer that it replaces.
        change: `(name, array) -> array`, for weights and masks.

    Raises:
        ValueError: if the weights have other names.
    """
    theirs = dict(walk(old))
    new.trainable = old.trainable
    for path, one in list(walk(new)):
        if isinstance(theirs.get(path), Masked):
            mask_layer(one, MASKED_LAYERS[type(one)])
        if path in theirs:
            one.trainable = theirs[path].trainable
    sources, targets = _variables(old), _variables(new)
    if sources.keys() != targets.keys():
        other = sorted(sources.keys() ^ targets.keys())
        raise ValueError(f"it is quantized or has other weights than usual: {other}")
    for name, target in targets.items():
        target.assign(change(name, np.asarray(ops.convert_to_numpy(sources[name]))))
        target.trainable = sources[name].trainable
    return new


def _variables(layer: Any) -> dict[str, keras.Variable]:
    masks = {f"{name}_mask": mask for name, (mask, _) in named_masks(layer).items()}
    return {
        name: variable
        for name, variable in (named_variables(layer) | masks).items()
        if "seed_generator" not in name
    }
