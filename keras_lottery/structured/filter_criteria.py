"""What a filter is worth: `Filters -> scores`, larger means keep.

Each is a criterion by `of_filters`. A new one is a function, and a line in `CRITERIA`.
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
"""Of `entropy`."""


def l1(filters: Filters) -> np.ndarray:
    """The sum of a filter's absolute weights; the mean over layers that are tied.

    Reference:
        Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.1.
    """
    return np.mean([np.abs(kernel).sum(axis=1) for kernel in filters.kernels], axis=0)


def l2(filters: Filters) -> np.ndarray:
    """The Euclidean norm of a filter's weights; the mean over layers that are tied.

    Reference:
        He et al. 2018, "Soft filter pruning for accelerating deep convolutional neural
        networks", equation 2.
    """
    return np.mean([np.linalg.norm(k, axis=1) for k in filters.kernels], axis=0)


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


def hrank(filters: Filters) -> np.ndarray:
    """The rank of a filter's feature map, the mean over the data.

    Maps have to be at least 3 x 3. Warns where more than half of a layer's filters have
    the full rank, as they do without a ReLU before: nothing tells these apart.

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
    """The entropy over the data of the mean of a filter's feature map.

    In nats, of the shares in ten bins of equal width between its smallest mean and its
    largest one: a filter that answers all inputs alike is worth nothing. The formula is
    ours: that of the paper is not public.

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
    """The penalty at which a filter enters, where few are to make the next outputs.

    Of the lasso ‖Y - Σ β_i X_i‖² + α ‖β‖₁, X_i being what the next layers have from
    filter i, and Y their sum: α falls until β_i is no longer zero. Each X_i is scaled
    to norm 1, so that the penalties compare. Filters that never enter are worth
    nothing. Follow it by `repair="least_squares"`.

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
    """How early a filter is chosen by the loss, where the layer becomes an average.

    Reference:
        Ye et al. 2020, "Good subnetworks provably exist: pruning via greedy forward
        selection", algorithm 1.
    """
    return GreedyForward("loss").score(filters)


def greedy_imitation(filters: Filters) -> np.ndarray:
    """How early a filter is chosen by the next layers' outputs.

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
