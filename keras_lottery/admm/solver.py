"""ADMM that iterates until it has converged."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_lottery import checks
from keras_lottery.admm.proximal import Prox
from keras_lottery.admm.split import Split, Vector, each, norm

# Boyd et al. 2011, equation 3.13: ρ changes if one residual is this many times as large
# as the other.
IMBALANCE = 10
FACTOR = 2


class Residual(NamedTuple):
    """How far an iteration is from the optimum.

    Attributes:
        primal: ||x - z||.
        dual: ρ ||z - previous z||.
        primal_bound, dual_bound: the bounds below which the residuals count as
            converged.
        rho: ρ in this iteration.
    """

    primal: float
    dual: float
    primal_bound: float
    dual_bound: float
    rho: float


@dataclass(frozen=True)
class Result:
    """The result of ADMM.

    Attributes:
        x, z: both copies of the solution: z has the structure of g, such as its zeros.
        u: the scaled dual variable.
        residuals: the residuals of each iteration.
        converged: whether both residuals of the last iteration are within their bounds.
    """

    x: Vector
    z: Vector
    u: Vector
    residuals: list[Residual]
    converged: bool


def solve(
    prox_f: Prox,
    prox_g: Prox,
    start: Vector,
    *,
    rho: float = 1.0,
    relaxation: float = 1.0,
    adaptive: bool = False,
    absolute: float = 1e-4,
    relative: float = 1e-2,
    max_iterations: int = 1000,
) -> Result:
    """Minimises f(x) + g(x), both given by their proximal operators.

    It stops when ||x - z|| <= √n absolute + relative max(||x||, ||z||) and ρ ||z -
    previous z|| <= √n absolute + relative ||ρ u||. It warns if this is not reached
    within `max_iterations`. If f or g is not convex, a limit need not be a global
    minimum.

    Args:
        prox_f, prox_g: `(v, rho) -> x`, the x that minimises f(x) + rho/2 ||x - v||²,
            and the same for g. The proximal operator of a constraint is the projection.
        start: the first z, an array or arrays by name.
        rho: ρ, above 0.
        relaxation: α, between 0 and 2; 1.5 to 1.8 often take fewer iterations.
        adaptive: whether ρ doubles when the primal residual is more than ten times the
            dual one, and halves in the opposite case, during the first half of
            `max_iterations`. After that it is constant, as proofs of convergence
            require.
        absolute, relative: tolerances, see above.
        max_iterations: the largest number of iterations.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Boyd et al. 2011, sections 3.1 to 3.4.

    Example:

    The lasso, ½ ||A x - b||² + 0.5 ||x||₁:

    >>> import keras_lottery as kl
    >>> prox_f = kl.admm.LeastSquares(np.eye(3), np.array([3.0, 0.2, -1.0]))
    >>> prox_g = lambda v, rho: kl.admm.soft_threshold(v, 0.5 / rho)
    >>> result = solve(prox_f, prox_g, np.zeros(3), absolute=1e-9, relative=1e-9)
    >>> result.z.round(6).tolist()
    [2.5, 0.0, -0.5]
    """
    checks.function("prox_f", prox_f, "a function of v and rho")
    checks.function("prox_g", prox_g, "a function of v and rho")
    checks.number("rho", rho, above=0)
    checks.number("relaxation", relaxation, above=0, below=2)
    checks.flag("adaptive", adaptive)
    checks.number("absolute", absolute, 0)
    checks.number("relative", relative, 0)
    checks.count("max_iterations", max_iterations, 1)
    _check_start(start)
    split = Split.at(each(lambda array: np.array(array, float), start), float(rho))
    residuals: list[Residual] = []
    converged = False
    for iteration in range(1, max_iterations + 1):
        before = split.z
        x = prox_f(split.target(), split.rho)
        _check_shape("prox_f", x, before)
        split.update(x, prox_g, relaxation)
        _check_shape("prox_g", split.z, before)
        residuals.append(_residual(x, before, split, absolute, relative))
        primal, dual, primal_bound, dual_bound, _ = residuals[-1]
        converged = primal <= primal_bound and dual <= dual_bound
        if converged:
            break
        if adaptive and iteration <= max_iterations / 2:
            if primal > IMBALANCE * dual:
                split.scale(FACTOR)
            elif dual > IMBALANCE * primal:
                split.scale(1 / FACTOR)
    if not converged:
        warnings.warn(
            f"ADMM has not converged in max_iterations={max_iterations}: the residuals "
            f"are {primal:.3g} and {dual:.3g}, not {primal_bound:.3g} and "
            f"{dual_bound:.3g}. Raise `max_iterations`, choose another rho than "
            f"{rho:g}, or pass adaptive=True.",
            stacklevel=2,
        )
    return Result(x, split.z, split.u, residuals, converged)


def consensus(
    prox_fs: Sequence[Prox], prox_g: Prox, start: np.ndarray, **how: float
) -> Result:
    """Minimises f_1(x) + … + f_N(x) + g(x), where each f_i has one part of the data.

    Each part has its own x, and all share one z near the mean of the x. This is `solve`
    with the parts stacked.

    Args:
        prox_fs: the proximal operators of f_1 … f_N.
        prox_g: the proximal operator of g.
        start: the first z, an array.
        how: keyword arguments of `solve`.

    Returns:
        A result whose `x` and `u` have shape (N, …) and whose `z` has the shape of
        `start`.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Boyd et al. 2011, section 7.1.1, equations 7.6 to 7.8.

    Example:

    >>> import keras_lottery as kl
    >>> parts = [kl.admm.LeastSquares(np.eye(2), np.full(2, b)) for b in (1.0, 3.0)]
    >>> result = consensus(parts, lambda v, rho: v, np.zeros(2), relative=1e-6)
    >>> result.z.round(3)
    array([2., 2.])
    """
    number = len(checks.sequence("prox_fs", prox_fs, "a list of functions", 1))
    for prox in prox_fs:
        checks.function("prox_fs", prox, "a list of functions of v and rho")
    checks.function("prox_g", prox_g, "a function of v and rho")
    _check_start(start)

    def side_by_side(v: np.ndarray, rho: float) -> np.ndarray:
        return np.stack([prox(own, rho) for prox, own in zip(prox_fs, v, strict=True)])

    def together(v: np.ndarray, rho: float) -> np.ndarray:
        z = prox_g(v.mean(axis=0), number * rho)
        return np.broadcast_to(z, v.shape)

    copies = np.broadcast_to(start, (number, *np.shape(start)))
    result = solve(side_by_side, together, copies, **how)  # type: ignore[arg-type]
    return Result(result.x, result.z[0], result.u, result.residuals, result.converged)


def _residual(
    x: Vector, before: Vector, split: Split, absolute: float, relative: float
) -> Residual:
    size = sum(array.size for array in (x.values() if isinstance(x, dict) else [x]))
    least = np.sqrt(size) * absolute
    return Residual(
        norm(each(np.subtract, x, split.z)),
        split.rho * norm(each(np.subtract, split.z, before)),
        least + relative * max(norm(x), norm(split.z)),
        least + relative * split.rho * norm(split.u),
        split.rho,
    )


def _check_start(start: Vector) -> None:
    arrays = start if isinstance(start, dict) else {"start": start}
    for array in arrays.values():
        if not checks.array("start", array, "an array, or arrays by name,").size:
            checks.refuse("start", "an array of at least one number", array)


def _check_shape(argument: str, found: Vector, start: Vector) -> None:
    """Raises ValueError if a proximal operator changes the shape of its input.

    NumPy would silently broadcast (3, 1) and (3,) to (3, 3).
    """
    shapes, wanted = (each(np.shape, one) for one in (found, start))
    if shapes != wanted:
        form = (
            f"a function that returns an array of the shape {wanted} of what it takes"
        )
        checks.refuse(argument, form, shapes)
