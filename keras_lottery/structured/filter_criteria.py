"""Criteria that score filters: `Filters -> scores`, larger means keep.

`of_filters` makes a criterion of each function. To add one, write a function and add a
line to `CRITERIA`.
"""

import warnings
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from keras_lottery.registry import Registry
from keras_lottery.structured.filters import Filters, of_filters
from keras_lottery.structured.greedy import GreedyForward
from keras_lottery.tickets.criteria import Criterion

__all__ = [
    "GreedyForward",
    "activation",
    "bn_scale",
    "entropy",
    "fpgm",
    "get",
    "greedy_forward",
    "greedy_imitation",
    "hrank",
    "l1",
    "l2",
    "lasso",
    "of_filters",
    "random",
    "register",
]

BINS = 10
"""The number of bins of `entropy`."""


def l1(filters: Filters) -> np.ndarray:
    """The sum of a filter's absolute weights, averaged over tied layers.

    Reference:
        Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.1.
    """
    return np.mean([np.abs(kernel).sum(axis=1) for kernel in filters.kernels], axis=0)


def l2(filters: Filters) -> np.ndarray:
    """The Euclidean norm of a filter's weights, averaged over tied layers.

    Reference:
        He et al. 2018, "Soft filter pruning for accelerating deep convolutional neural
        networks", equation 2.
    """
    return np.mean([np.linalg.norm(k, axis=1) for k in filters.kernels], axis=0)


def fpgm(filters: Filters) -> np.ndarray:
    """The sum of a filter's distances to the layer's other filters.

    Reference:
        He et al. 2019, "Filter pruning via geometric median", equation 6.
    """
    distances = [
        cdist(kernel, kernel[filters.alive]).sum(axis=1) for kernel in filters.kernels
    ]
    return np.mean(distances, axis=0)


def bn_scale(filters: Filters) -> np.ndarray:
    """|gamma| of the normalisation behind a filter, averaged if there are several.

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


def hrank(filters: Filters) -> np.ndarray:
    """The rank of a filter's feature map, averaged over the data.

    Maps have to be at least 3 x 3. A warning names layers in which more than half of
    the filters have full rank, as they do without a ReLU before the map: the ranks do
    not distinguish these filters.

    Reference:
        Lin et al. 2020, "HRank: filter pruning using high-rank feature map", equation
        4.
    """

    def ranks_of(maps: np.ndarray) -> np.ndarray:
        places = maps.shape[1:-1]
        if len(places) != 2 or min(places) < 3:
            raise ValueError(
                "The rank tells filters apart by feature maps of at least 3 x 3. "
                f"Received: criterion='hrank', and '{filters.name}' with maps of "
                f"{places}. Choose another criterion, or leave the layer out: "
                f"allocation=kl.allocation.Uniform(exclude=['{filters.name}'])."
            )
        ranks = np.linalg.matrix_rank(np.moveaxis(maps, -1, 1))
        full.append(ranks >= min(places))
        return ranks

    full: list[np.ndarray] = []
    ranks = filters.of_maps(ranks_of).mean(axis=0)
    is_full = np.all(np.concatenate(full), axis=0, keepdims=True)[0]
    if np.mean(is_full[filters.alive]) > 0.5:
        warnings.warn(
            f"The feature maps of more than half of the filters of '{filters.name}' "
            "have the full rank, and criterion='hrank' does not tell them apart. It is "
            "made for maps behind a ReLU. Choose another criterion.",
            stacklevel=2,
        )
    return ranks


def entropy(filters: Filters) -> np.ndarray:
    """The entropy, over the data, of the mean of a filter's feature map.

    The entropy is measured in nats. It is the entropy of the shares of examples in ten
    bins of equal width between the smallest and the largest mean. A filter that
    responds to all inputs alike scores zero. The formula is ours, since the paper's is
    not public.

    Reference:
        Min et al. 2018, "2PFPCE: two-phase filter pruning based on conditional
        entropy", for the idea.
    """
    from scipy.stats import entropy

    means = filters.of_maps(
        lambda maps: maps.reshape(len(maps), -1, maps.shape[-1]).mean(1, "float64")
    )
    return np.array([entropy(np.histogram(one, BINS)[0]) for one in means.T])


def lasso(filters: Filters) -> np.ndarray:
    """The penalty at which the lasso of the next layers' outputs selects a filter.

    The lasso minimises ‖Y - Σ β_i X_i‖² + α ‖β‖₁, where X_i is the contribution of
    filter i to the next layers' outputs and Y is the sum of all X_i. The score is the
    largest α at which β_i is no longer zero. Each X_i is scaled to norm 1, so that the
    penalties can be compared. Filters that are never selected score zero. Combine it
    with `repair="least_squares"`.

    Reference:
        He et al. 2017, "Channel pruning for accelerating very deep neural networks",
        equation 1.
    """
    from sklearn.linear_model import lars_path_gram

    products = filters.products()
    sums = products.sum(axis=1)
    size = np.sqrt(np.maximum(np.diag(products), 1e-30))
    alphas, _, path = lars_path_gram(
        sums / size,
        products / np.outer(size, size),
        n_samples=len(products),
        method="lasso",
        max_iter=8 * len(products),
    )
    enters = (np.abs(path) > 0).argmax(axis=1)
    return np.where(path.any(axis=1), alphas[np.maximum(enters - 1, 0)], 0.0)


def greedy_forward(filters: Filters) -> np.ndarray:
    """How early greedy selection by the loss adds a filter to the layer's average.

    Reference:
        Ye et al. 2020, "Good subnetworks provably exist: pruning via greedy forward
        selection", algorithm 1.
    """
    return GreedyForward("loss").score(filters)


def greedy_imitation(filters: Filters) -> np.ndarray:
    """How early greedy selection by the next layers' outputs adds a filter.

    Reference:
        Ye et al. 2020, "Greedy optimization provably wins the lottery: logarithmic
        number of winning tickets is enough".
    """
    return GreedyForward("imitation").score(filters)


def _complete(score: Criterion | Callable[[Filters], np.ndarray]) -> Criterion:
    return score if isinstance(score, Criterion) else of_filters(score)


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    "a function of `Filters`",
    {
        "l1": l1,
        "l2": l2,
        "fpgm": fpgm,
        "bn_scale": bn_scale,
        "random": random,
        "activation": activation,
        "entropy": entropy,
        "hrank": hrank,
        "lasso": lasso,
        "greedy_forward": Criterion(
            of_filters(greedy_forward), repair="greedy_forward"
        ),
        "greedy_imitation": Criterion(
            of_filters(greedy_imitation), repair="greedy_imitation"
        ),
    },
    wrap=_complete,
)
"""Criteria of filters by name, for `granularity="filter"`."""

get = CRITERIA.look_up
register = CRITERIA.register
