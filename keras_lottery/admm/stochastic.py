"""ADMM that uses gradients of mini-batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lottery import checks
from keras_lottery.admm.proximal import Prox
from keras_lottery.admm.split import Split

StepSize = Callable[[int], float]
"""η_k as a function of k = 1, 2, …"""


@dataclass(frozen=True)
class Averages:
    """The means of all iterates so far, which converge while the iterates need not.

    Attributes:
        x, z: the means of the two copies.
    """

    x: np.ndarray
    z: np.ndarray


def inverse_root(scale: float) -> StepSize:
    """η_k = scale / √k, for a convex f: O(1/√t).

    Args:
        scale: above 0. The proof uses the diameter of the set of possible x, divided by
            √2 times the norm of the gradients.

    Raises:
        ValueError: if it is not above 0.

    >>> inverse_root(0.5)(4)
    0.25
    """
    scale = checks.number("scale", scale, above=0)
    return lambda k: scale / k**0.5


def inverse(convexity: float) -> StepSize:
    """η_k = 1 / (μ k), for a strongly convex f: O(log t / t).

    Args:
        convexity: μ, above 0: f(x) - μ/2 ||x||² is convex.

    Raises:
        ValueError: if it is not above 0.

    >>> inverse(0.5)(4)
    0.5
    """
    convexity = checks.number("convexity", convexity, above=0)
    return lambda k: 1 / (convexity * k)


def stochastic(
    gradient: Callable[[np.ndarray], np.ndarray],
    prox_g: Prox,
    start: np.ndarray,
    step_size: StepSize,
    steps: int,
    *,
    rho: float = 1.0,
    callback: Callable[[int, Averages], Any] | None = None,
) -> Averages:
    """Minimises E f(x) + g(x), using gradients of f on mini-batches.

    At step k, x minimises <gradient, x> + ρ/2 ||x - z + u||² + ||x - x_k||² / (2 η_k);
    z and u are updated as in `solve`.

    Args:
        gradient: returns the gradient of f at x, each time on a new mini-batch.
        prox_g: `(v, rho) -> z`.
        start: the first x, an array.
        step_size: `inverse_root(…)`, `inverse(…)`, or a function of k = 1, 2, ….
        steps: the number of steps.
        rho: ρ, above 0.
        callback: called as `callback(k, averages)` after each step.

    Returns:
        The averages of x_1 … x_steps, each before its step, and of z, each after its
        step.

    Raises:
        ValueError: if an argument is out of range, or an iterate is not finite.

    Reference:
        Ouyang et al. 2013, "Stochastic alternating direction method of multipliers",
        algorithm 1 and theorems 1 and 2.

    Example:

    >>> import keras_lottery as kl
    >>> gradient = lambda x: x - np.array([3.0, 0.2])
    >>> prox_g = lambda v, rho: kl.admm.soft_threshold(v, 0.5 / rho)
    >>> stochastic(gradient, prox_g, np.zeros(2), inverse(1.0), 2000).z.round(1)
    array([2.5, 0. ])
    """
    checks.function("gradient", gradient, "a function of x")
    checks.function("prox_g", prox_g, "a function of v and rho")
    checks.array("start", start, "an array")
    checks.function("step_size", step_size, "a function of k, such as inverse(1.0)")
    checks.count("steps", steps, 1)
    checks.number("rho", rho, above=0)
    if callback is not None:
        checks.function("callback", callback, "a function of k and the averages")
    x = np.array(start, float)
    split = Split.at(x.copy(), float(rho))
    mean_x, mean_z = np.zeros_like(x), np.zeros_like(x)
    for k in range(1, steps + 1):
        eta = step_size(k)
        checks.number(f"step_size({k})", eta, above=0)
        mean_x += (x - mean_x) / k
        pulled = x / eta + split.rho * split.target() - gradient(x)
        x = pulled / (1 / eta + split.rho)
        if not np.isfinite(x).all():
            raise ValueError(
                f"Expected finite iterates. Received: NaN or infinity at step {k} of "
                f"{steps}, with step_size({k})={eta:g} and rho={rho:g}. Take smaller "
                "steps."
            )
        split.update(x, prox_g)
        mean_z += (split.z - mean_z) / k
        if callback is not None:
            callback(k, Averages(mean_x.copy(), mean_z.copy()))
    return Averages(mean_x, mean_z)
