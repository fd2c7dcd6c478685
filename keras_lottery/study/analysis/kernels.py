"""The weights that analyses compare by default."""

import numpy as np

from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks


def masks_of(masks: Masks | None = None, **states: State) -> Masks:
    """The given masks, or dense masks of every array of two or more dimensions.

    Args:
        masks: the masks of the weights to compare.
        states: the states to compare, by the argument's name.

    Raises:
        ValueError: if a state lacks one of the weights, or has it in another shape.
    """
    for argument, state in states.items():
        checks.state(argument, state)
    first = next(iter(states.values()))
    if masks is None:
        kernels = {n: a.shape for n, a in first.items() if np.ndim(a) >= 2}
        masks = Masks.dense(kernels)
    checks.masks("masks", masks)
    for argument, state in states.items():
        for name, mask in masks.items():
            shape = np.shape(state[name]) if name in state else None
            if shape != mask.shape:
                raise ValueError(
                    f"Expected `{argument}` with an array of shape {mask.shape} for "
                    f"{name!r}. Received: "
                    + (f"shape {shape}" if shape else f"only {sorted(state)}")
                    + ". Compare states of one network."
                )
    if not masks:
        raise ValueError(
            "Expected states with arrays of two or more dimensions, or `masks`. "
            f"Received: {sorted(first)}"
        )
    return masks
