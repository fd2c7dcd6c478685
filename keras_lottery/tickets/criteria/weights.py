"""Scores of a weight's value before training, w_i, and after it, w_f.

Each is one expression of the two, as in figure 3 of Zhou et al. 2019, "Deconstructing
lottery tickets: zeros, signs, and the supermask". w_i is the value before the dense
network's training, whatever the ticket was rewound to.
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores

Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]
Criterion = Callable[[Snapshot], Scores]


def by_layer(formula: Formula) -> Criterion:
    """Turns a formula for the weights of one layer into a criterion.

    Args:
        formula: `(w_i, w_f) -> scores`, for the weights that are left in one layer, as
            arrays of one dimension.
    """

    @functools.wraps(formula)
    def criterion(snapshot: Snapshot) -> Scores:
        scores = {}
        for name, mask in snapshot.masks.items():
            # Pruned weights are not ranked, so their score does not matter.
            part = formula(snapshot.initial[name][mask], snapshot.final[name][mask])
            scores[name] = np.zeros(mask.shape, part.dtype)
            scores[name][mask] = part
        return scores

    return criterion


def of_training(criterion: Criterion) -> Criterion:
    """Returns the criterion with a check that there was training, which it needs."""

    @functools.wraps(criterion)
    def checked(snapshot: Snapshot) -> Scores:
        check_trained(snapshot)
        return criterion(snapshot)

    return checked


def check_trained(snapshot: Snapshot) -> None:
    """Raises ValueError if no weight differs from its value before training."""
    if all(
        np.array_equal(snapshot.initial[name], snapshot.final[name])
        for name in snapshot.masks
    ):
        raise ValueError(
            "This criterion compares weights before and after training. Received: a "
            "snapshot whose initial and final weights are equal, as `prune` and "
            "`GradualPruning` make them. Use it in a `LotteryTicketSearch`, or choose "
            "a criterion such as 'magnitude'."
        )


@by_layer
def magnitude(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """|w_f|: keeps the weights that are large after training.

    Reference:
        Han et al. 2015; Frankle & Carbin 2019. "large_final" in Zhou et al. 2019.
    """
    return np.abs(w_f)


@by_layer
def small_final(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """-|w_f|: keeps the weights that are small after training."""
    return -np.abs(w_f)


@of_training
@by_layer
def large_init(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """|w_i|: keeps the weights that were large before training."""
    return np.abs(w_i)


@of_training
@by_layer
def small_init(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """-|w_i|: keeps the weights that were small before training."""
    return -np.abs(w_i)


@of_training
@by_layer
def large_init_large_final(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """min(P(|w_i|), P(|w_f|)): keeps the weights that were large and stayed large.

    P is a value's percentile among the weights left in its layer. The paper's
    min(|w_i|, α|w_f|) sets α so that both terms prune the same number of weights.
    Percentiles have this property for any number of weights to keep. They are
    distributed alike in all layers, and a global ranking therefore prunes all layers
    alike.
    """
    return np.minimum(_percentile(w_i), _percentile(w_f))


@of_training
@by_layer
def small_init_small_final(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """-max(P(|w_i|), P(|w_f|)): keeps the weights that were small and stayed small.

    P is a value's percentile, as in `large_init_large_final`.
    """
    return -np.maximum(_percentile(w_i), _percentile(w_f))


@of_training
@by_layer
def magnitude_increase(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """|w_f| - |w_i|: keeps the weights that grew in training."""
    return np.abs(w_f) - np.abs(w_i)


@of_training
@by_layer
def distance(w_i: np.ndarray, w_f: np.ndarray) -> np.ndarray:
    """|w_f - w_i|: keeps the weights that moved far in training.

    The paper calls it "movement", a name that now stands for the criterion of Sanh et
    al.
    """
    return np.abs(w_f - w_i)


def _percentile(weights: np.ndarray) -> np.ndarray:
    return rankdata(np.abs(weights)) / max(weights.size, 1)
