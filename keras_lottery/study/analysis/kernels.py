"""Which weights are compared, where no masks say so."""

import numpy as np

from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks


def masks_of(*states: State, masks: Masks | None = None) -> Masks:
    """The masks given, or dense ones of every array of two or more dimensions.

    Args:
        states: what is compared.
        masks: of the weights to compare.

    Raises:
        ValueError: if a state lacks one of the weights, or has it in another shape.
    """
    if masks is None:
        kernels = {n: a.shape for n, a in states[0].items() if np.ndim(a) >= 2}
        masks = Masks.dense(kernels)
    for state in states:
        for name, mask in masks.items():
            shape = np.shape(state[name]) if name in state else None
            if shape != mask.shape:
                raise ValueError(
                    f"Expected states with an array of shape {mask.shape} for "
                    f"`{name}`. Received: "
                    + (f"shape {shape}" if shape else f"only {sorted(state)}")
                    + ". Compare states of one network."
                )
    if not masks:
        raise ValueError(
            "Expected states with arrays of two or more dimensions, or `masks`. "
            f"Received: {sorted(states[0])}"
        )
    return masks
