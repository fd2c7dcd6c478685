"""The best weights for a mask, by least squares."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from keras_lottery import checks
from keras_lottery.tickets.repair.by_layer import ByLayer, Choice

SMALL = 1024
"""The number of inputs below which one thread solves the equations."""


@dataclass(frozen=True)
class LeastSquares(ByLayer):
    """Finds the remaining weights by least squares: no others fit the outputs better.

    Each output has its own system of equations, in the inputs that it keeps. Outputs
    with equal masks share one system, as in a layer that lost whole inputs.

    Reference:
        He et al. 2017, "Channel pruning for accelerating very deep neural networks",
        section 3.1: the reconstruction, there after whole channels are gone.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choose:
            remedy = "It solves for a mask. `SparseGPT` and `ADMM` choose one."
            checks.refuse("choose", "False", self.choose, remedy)

    def solve(
        self,
        weights: np.ndarray,
        mask: np.ndarray,
        moments: np.ndarray,
        choice: Choice | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        # For small systems, synchronising threads takes longer than solving.
        with threadpool_limits(1 if len(weights) < SMALL else None, "blas"):
            return _solved(weights, mask, moments), mask


def _solved(weights: np.ndarray, mask: np.ndarray, moments: np.ndarray) -> np.ndarray:
    targets = moments @ weights
    found = np.zeros_like(weights)
    packed = np.packbits(mask, axis=0)
    _, number = np.unique(packed, axis=1, return_inverse=True)
    for which in range(number.max() + 1):
        columns = np.flatnonzero(number == which)
        rows = np.flatnonzero(mask[:, columns[0]])
        if len(rows):
            factor = cho_factor(moments[np.ix_(rows, rows)], check_finite=False)
            part = targets[np.ix_(rows, columns)]
            found[np.ix_(rows, columns)] = cho_solve(factor, part)
    return found
