"""What a filter is worth: `Filters -> scores`, larger means keep.

Each is a criterion by `of_filters`. A new one is a function, and a line in `CRITERIA`.
"""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from keras_lottery.registry import Registry
from keras_lottery.structured.filters import Filters, of_filters
from keras_lottery.tickets.criteria import Criterion

__all__ = [
    "activation",
    "bn_scale",
    "fpgm",
    "get",
    "l1",
    "of_filters",
    "random",
    "register",
]


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


def _complete(score: Criterion | Callable[[Filters], np.ndarray]) -> Criterion:
    return score if isinstance(score, Criterion) else of_filters(score)


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    "a function of `Filters`",
    {
        "l1": l1,
        "fpgm": fpgm,
        "bn_scale": bn_scale,
        "random": random,
        "activation": activation,
    },
    wrap=_complete,
)
"""Criteria of filters by name, for `granularity="filter"`."""

get = CRITERIA.look_up
register = CRITERIA.register
