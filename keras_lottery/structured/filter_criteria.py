"""What a filter is worth: `Filters -> scores`, larger means keep.

A filter is a filter of a convolution or a unit of a Dense layer, with those of other
layers that it is tied to by residual connections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from keras_lottery.registry import Registry


@dataclass(frozen=True)
class Filters:
    """The filters of a layer, or of layers that are tied together.

    Args:
        name: the layer's path; several are joined by `+`.
        alive: booleans (filters,): which are not pruned yet.
        kernels: an array (filters, weights) for each layer.
        scales: gamma of each BatchNormalization behind them, of shape (filters,).
        activations: gives the mean absolute value (filters,) of what the next layers
            read, over the data.
        rng: random numbers.
    """

    name: str
    alive: np.ndarray
    kernels: Sequence[np.ndarray]
    scales: Sequence[np.ndarray]
    activations: Callable[[], np.ndarray]
    rng: np.random.Generator


FilterCriterion = Callable[[Filters], np.ndarray]


def l1(filters: Filters) -> np.ndarray:
    """The sum of a filter's absolute weights; the mean over layers that are tied.

    Reference:
        Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.1.
    """
    return np.mean([np.abs(kernel).sum(axis=1) for kernel in filters.kernels], axis=0)


def fpgm(filters: Filters) -> np.ndarray:
    """The distances to the layer's other filters: one near their middle is replaceable.

    Reference:
        He et al. 2019, "Filter pruning via geometric median", equation 6.
    """
    distances = [
        cdist(kernel, kernel[filters.alive]).sum(axis=1) for kernel in filters.kernels
    ]
    return np.mean(distances, axis=0)


def bn_scale(filters: Filters) -> np.ndarray:
    """|gamma| of the normalisation behind a filter; the mean where there are several.

    Reference:
        Liu et al. 2017, "Learning efficient convolutional networks through network
        slimming".
    """
    if not filters.scales:
        raise ValueError(
            "Expected a BatchNormalization with a scale behind every layer whose "
            f"filters are pruned. Received: criterion='bn_scale', and none behind "
            f"'{filters.name}'. Choose another criterion, or leave the layer out: "
            f"allocation=kl.allocation.Uniform(exclude=['{filters.name}'])."
        )
    return np.mean([np.abs(scale) for scale in filters.scales], axis=0)


def random(filters: Filters) -> np.ndarray:
    """Keeps filters at random."""
    return filters.rng.random(len(filters.alive))


def activation(filters: Filters) -> np.ndarray:
    """The mean absolute activation over the data, as the next layers read it.

    Reference:
        Tan & Motani 2020, "DropNet: reducing neural network complexity via iterative
        pruning".
    """
    return filters.activations()


CRITERIA: Registry[FilterCriterion] = Registry(
    "criterion",
    "a function of `Filters`",
    {
        "l1": l1,
        "fpgm": fpgm,
        "bn_scale": bn_scale,
        "random": random,
        "activation": activation,
    },
)
"""Criteria of filters by name."""

get = CRITERIA.look_up
register = CRITERIA.register
