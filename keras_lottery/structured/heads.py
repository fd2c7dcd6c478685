"""`granularity="head"`: whole heads of attention layers."""

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import named_variables, walk
from keras_lottery.masks import Masks
from keras_lottery.structured.rules.attention import AXES, Heads
from keras_lottery.structured.units import Slices, Units


def find_heads(model: keras.Model, masks: Masks) -> Units:
    """Returns the heads of a masked model's attention layers, for any kind of model.

    It returns the heads of layers in which all kernels are masked: those of queries,
    keys, values and outputs. Heads of queries that share keys and values are pruned
    together.

    Args:
        model: the masked model.
        masks: the masks of the model that may change.

    Raises:
        ValueError: if there are no such heads.
    """
    layers: dict[str, np.ndarray] = {}
    slices: list[Slices] = []
    shifts: dict[str, np.ndarray] = {}
    variables = named_variables(model)
    total = 0
    for path, layer in walk(model):
        heads = Heads.of(layer)
        if heads is None or heads.count < 2:
            continue
        parts = [part for part in AXES if f"{path}/{part}/kernel" in variables]
        if not all(f"{path}/{part}/kernel" in masks for part in parts):
            continue
        layers[path] = total + np.arange(heads.count)
        for part in parts:
            groups = total + heads.along(part)
            slices.append(Slices(f"{path}/{part}/kernel", AXES[part], groups, "filter"))
            bias = variables.get(f"{path}/{part}/bias")
            if bias is not None and part != "attention_output":
                # Each head has a row of entries.
                rows = np.broadcast_to(groups[:, np.newaxis], tuple(bias.shape))
                shifts[f"{path}/{part}/bias"] = rows
        total += heads.count
    if not layers:
        raise ValueError(
            f"Model '{model.name}' has no heads that can be pruned: no "
            "MultiHeadAttention or GroupQueryAttention of several heads whose kernels "
            "are all masked and may change. Received: granularity='head'. Choose "
            "another, or see to `prunable=` of `mask_model` and to frozen layers."
        )
    return Units("filter", layers, slices, {}, shifts, total)
