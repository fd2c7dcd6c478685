"""Searches for the pruning rates of layers: by simulated annealing, and at random."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import dual_annealing

from keras_lottery import checks

Energy = Callable[[np.ndarray], float]
"""Maps one number from 0 to 1 for each layer to the value that is minimised."""


def anneal(energy: Energy, size: int, evaluations: int, seed: int = 0) -> np.ndarray:
    """Returns the best of the evaluated points, by simulated annealing.

    The search starts at the middle point and uses generalised annealing, which takes
    long and short steps, with fewer long ones as the temperature falls. Energies are
    divided by the energy of the middle point, and temperatures start at 1, so that the
    scale of the energy does not matter.

    Args:
        energy: see `Energy`.
        size: the number of layers.
        evaluations: about how often the energy is evaluated.
        seed: the seed of the steps.

    Reference:
        Liu et al. 2020, "AutoCompress", section 4, for the use; Xiang et al. 1997,
        "Generalized simulated annealing algorithm", for the method, by SciPy.

    Example:

    >>> best = anneal(lambda x: float(np.abs(x - [0.2, 0.9]).sum()), 2, 200)
    >>> best.round(1).tolist()
    [0.2, 0.9]
    """
    _check(energy, size, evaluations, seed)
    middle = np.full(size, 0.5)
    best = _Best(energy)
    scale = abs(best(middle)) or 1.0
    if evaluations > 1:
        dual_annealing(
            lambda point: best(point) / scale,
            [(0.0, 1.0)] * size,
            maxiter=evaluations,
            maxfun=evaluations - 1,
            initial_temp=1.0,
            visit=1.6,
            accept=-50.0,
            no_local_search=True,  # energies of whole numbers of filters have no slope
            seed=seed,
            x0=middle,
        )
    return best.point


def draw(energy: Energy, size: int, evaluations: int, seed: int = 0) -> np.ndarray:
    """Returns the best of points drawn at random; the arguments are as in `anneal`."""
    _check(energy, size, evaluations, seed)
    rng = np.random.default_rng(seed)
    best = _Best(energy)
    best(np.full(size, 0.5))
    for _ in range(evaluations - 1):
        best(rng.random(size))
    return best.point


def _check(energy: Energy, size: int, evaluations: int, seed: int) -> None:
    checks.function("energy", energy)
    checks.count("size", size, 1)
    checks.count("evaluations", evaluations, 1)
    checks.seed("seed", seed)


class _Best:
    """Evaluates energies, and keeps the point of the lowest one."""

    def __init__(self, energy: Energy) -> None:
        self.energy = energy
        self.least = np.inf
        self.point = np.zeros(0)

    def __call__(self, point: np.ndarray) -> float:
        found = self.energy(point)
        if found < self.least or not len(self.point):
            self.least, self.point = found, np.array(point)
        return found
