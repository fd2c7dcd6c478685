"""Warnings about layers that pruning leaves almost empty."""

import warnings

import keras
import numpy as np

from keras_lottery.keras_bridge.gradients import keeping
from keras_lottery.keras_bridge.layers import (
    walk,
)
from keras_lottery.keras_bridge.layers.recurrent import at_rest
from keras_lottery.masks import Masks

THIN = 0.01
"""The density of a layer below which `prune` warns."""


REMEDY = (
    "Choose a smaller sparsity, an allocation with shares by layer, such as 'erk', or "
    "`Global(floor=0.3)`, or leave them out, by `exclude=` of the allocation or "
    "`prunable=` of `mask_model`."
)


def warn_of_thin_layers(before: Masks, after: Masks, sparsity: float) -> None:
    """Warns about layers that this pruning leaves almost or completely empty."""
    # At a sparsity of 99.9 %, layers with a density of 0.1 % are expected.
    least = min(THIN, (1 - sparsity) / 2)
    share = {name: mask.mean() for name, mask in after.items()}
    fell = {name: share[name] for name, m in before.items() if m.mean() >= least}
    thin = {name: f"{one:.2%}" for name, one in fell.items() if 0 < one < least}
    lost = [n for n, mask in before.items() if mask.any() and not share[n]]
    if lost:
        warnings.warn(
            f"No weights are left in {lost} at sparsity={sparsity}. Unless another "
            "path bypasses these layers, the outputs are constant, and training cannot "
            f"change that. {REMEDY}",
            stacklevel=3,
        )
    if thin:
        warnings.warn(
            f"Few weights are left in {thin} at sparsity={sparsity}. Layers as sparse "
            f"as these cost much accuracy. {REMEDY}",
            stacklevel=3,
        )


def warn_of_wrappers(model: keras.Model, before: Masks, after: Masks) -> None:
    """Warns about wrappers that return NaN because an output lost all its weights."""
    for path, layer in walk(model):
        if not isinstance(layer, keras.layers.Wrapper):
            continue
        lost = {
            name: int(np.count_nonzero(_outputs(before[name]) & ~_outputs(mask)))
            for name, mask in after.items()
            if name.startswith(f"{path}/")
        }
        if any(lost.values()) and _returns_nan(model, layer):
            warnings.warn(
                f"The layer '{path}' ({type(layer).__name__}) returns NaN: all weights "
                f"of an output were pruned, of {lost}, by whose norm it divides. Add a "
                "small number to the norm, leave the layer out, by `prunable=` of "
                "`mask_model`, or choose a smaller sparsity.",
                stacklevel=3,
            )


def _outputs(mask: np.ndarray) -> np.ndarray:
    """Marks the outputs that have a weight left."""
    return np.asarray(mask.reshape(-1, mask.shape[-1]).any(axis=0))


def _returns_nan(model: keras.Model, layer: keras.layers.Layer) -> bool:
    shape = (layer.get_build_config() or {}).get("input_shape", ())
    try:
        # With zeros as input, a layer that normalises its inputs would return NaN by
        # itself.
        inputs = keras.ops.ones([size or 1 for size in shape], layer.compute_dtype)
        with keeping(model), at_rest(model):
            outputs = keras.tree.flatten(layer(inputs, training=False))
    except Exception:
        # The layer takes several inputs, or other ones, so that nothing is known.
        return False
    arrays = map(keras.ops.convert_to_numpy, outputs)
    return any(np.isnan(array.astype("float32")).any() for array in arrays)
