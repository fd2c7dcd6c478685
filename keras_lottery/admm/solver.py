"""ADMM until it has converged."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_lottery import checks
from keras_lottery.admm.proximal import Prox
from keras_lottery.admm.split import Split, Vector, each, norm

# Of Boyd et al. 2011, equation 3.13: where one residual is so much larger than the
# other, ρ changes by the factor.
IMBALANCE = 10
FACTOR = 2


class Residual(NamedTuple):
    """How far an iteration is from the optimum.

    Attributes:
        primal: ||x - z||.
        dual: ρ ||z - the z before||.
        primal_bound, dual_bound: below which they count as converged.
        rho: ρ of this iteration.
    """

    primal: float
    dual: float
    primal_bound: float
    dual_bound: float
    rho: float


@dataclass(frozen=True)
class Result:
    """What ADMM came to.

    Attributes:
        x, z: both copies of the solution: z has the structure of g, such as its zeros.
        u: the scaled dual variable.
        residuals: one for each iteration.
        converged: whether both residuals of the last one are within their bounds.
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
    """Minimises f(x) + g(x), each known by its proximal operator.

    It stops where ||x - z|| <= √n absolute + relative max(||x||, ||z||) and
    ρ ||z - the z before|| <= √n absolute + relative ||ρ u||. Warns if that takes more
    than `max_iterations`. Where f or g is not convex, a limit is none of all minima.

    Args:
        prox_f, prox_g: `(v, rho) -> x`, the x that minimises f(x) + rho/2 ||x - v||²,
            and the same of g. Of a constraint it is the projection.
        start: the first z, an array or arrays by name.
        rho: ρ, above 0.
        relaxation: α, between 0 and 2; 1.5 to 1.8 often take fewer iterations.
        adaptive: whether ρ doubles where the primal residual is ten times the dual one,
            and halves in the other case, in the first half of `max_iterations`. From
            then on it stays, as proofs of convergence want it.
        absolute, relative: tolerances, see above.
        max_iterations: how many at most.

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
    """Minimises f_1(x) + … + f_N(x) + g(x), where each f has a part of the data.

    Each part has an x of its own; z, the same for all, is near their mean. That is
    `solve` with the parts side by side.

    Args:
        prox_fs: the proximal operators of the parts.
        prox_g: that of g.
        start: the first z, an array.
        how: keyword arguments of `solve`.

    Returns:
        A result whose `x` and `u` are (N, …) and whose `z` is of the shape of `start`.

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
    """Raises ValueError unless a proximal operator keeps the shape of what it is given.

    NumPy would make (3, 1) and (3,) one of (3, 3), without a word.
    """
    shapes, wanted = (each(np.shape, one) for one in (found, start))
    if shapes != wanted:
        form = (
            f"a function that returns an array of the shape {wanted} of what it takes"
        )
        checks.refuse(argument, form, shapes)
