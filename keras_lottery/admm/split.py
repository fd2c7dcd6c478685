"""One iteration of ADMM, for a caller that finds x itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = Any
"""An array, or arrays by name."""


@dataclass
class Split:
    """The copy z of x, sparse or otherwise simple, and the dual variable of x = z.

    Args:
        z: the copy of x: an array, or arrays by name.
        u: the scaled dual variable, the sum of x - z so far.
        rho: ρ, the weight of the quadratic term; ρ u is the dual variable itself.

    Reference:
        Boyd et al. 2011, equations 3.5 to 3.7.

    Example:

    >>> split = Split.at(np.array([3.0, 0.0]), rho=0.5)
    >>> split.update(np.array([3.0, -1.0]), lambda v, rho: np.where(v > 0, v, 0))
    >>> split.z, split.u, split.target()
    (array([3., 0.]), array([ 0., -1.]), array([3., 1.]))
    >>> split.scale(2)
    >>> split.u, split.rho
    (array([ 0. , -0.5]), 1.0)
    """

    z: Vector
    u: Vector
    rho: float

    @classmethod
    def at(cls, z: Vector, rho: float) -> "Split":
        """Returns the initial split: z is the given vector, and u is zero."""
        return cls(z, each(np.zeros_like, z), rho)

    def target(self) -> Vector:
        """Returns z - u: the next x minimises f(x) + ρ/2 ||x - (z - u)||²."""
        return each(np.subtract, self.z, self.u)

    def update(
        self,
        x: Vector,
        prox_g: Callable[[Vector, float], Vector],
        relaxation: float = 1,
    ) -> None:
        """Takes the z-step and the u-step.

        Args:
            x: the result of the x-step.
            prox_g: `(v, rho) -> z`, the z that minimises g(z) + ρ/2 ||z - v||².
            relaxation: α; x is replaced by α x + (1 - α) z.
        """
        relaxed = x
        if relaxation != 1:
            relaxed = each(
                lambda x, z: relaxation * x + (1 - relaxation) * z, x, self.z
            )
        moved = each(np.add, relaxed, self.u)
        self.z = prox_g(moved, self.rho)
        self.u = each(np.subtract, moved, self.z)

    def scale(self, factor: float) -> None:
        """Multiplies ρ and divides u by the factor, so that ρ u stays the same.

        Reference:
            Boyd et al. 2011, section 3.4.1.
        """
        self.rho *= factor
        self.u = each(lambda u: u / factor, self.u)


def each(function: Callable[..., Any], *vectors: Vector) -> Vector:
    """Applies a function to arrays, or to the arrays of each name."""
    first = vectors[0]
    if not isinstance(first, Mapping):
        return function(*vectors)
    return {name: function(*(vector[name] for vector in vectors)) for name in first}


def norm(vector: Vector) -> float:
    """Returns the Euclidean norm of all arrays together."""
    arrays = vector.values() if isinstance(vector, Mapping) else [vector]
    return float(np.sqrt(sum(np.sum(np.square(array)) for array in arrays)))
