"""Proximal operators: `(v, rho) -> the x that minimises h(x) + rho/2 ||x - v||²`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from keras_lottery import checks

Prox = Callable[[Any, float], Any]
"""`(v, rho) -> x`."""


def soft_threshold(v: np.ndarray, amount: float) -> np.ndarray:
    """Moves v towards zero by an amount: the proximal operator of |·|.

    For g = λ ||·||₁, use `lambda v, rho: soft_threshold(v, penalty / rho)`.

    Args:
        v: an array.
        amount: λ / ρ, at least 0.

    Raises:
        ValueError: if `v` is not finite or `amount` is negative.

    >>> soft_threshold(np.array([-2.0, 0.5, 3.0]), 1.0)
    array([-1.,  0.,  2.])
    """
    v = checks.array("v", v)
    checks.number("amount", amount, 0)
    return np.sign(v) * np.maximum(np.abs(v) - amount, 0)


class LeastSquares:
    """The proximal operator of ½ ||A x - b||².

    The matrix is factored once for each rho, in the smaller of its two dimensions.

    Args:
        a: A, an array (rows, columns).
        b: an array (rows,) or (rows, outputs).

    Raises:
        ValueError: if the shapes do not fit, or a number is not finite.

    Reference:
        Boyd et al. 2011, sections 4.2.4 (the inversion lemma) and 6.4.

    Example:

    >>> prox = LeastSquares(np.eye(2), np.array([2.0, 4.0]))
    >>> prox(np.zeros(2), 1.0)
    array([1., 2.])
    """

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        checks.array("a", a, "an array of two dimensions,", (2,))
        checks.array("b", b, "an array of one or two dimensions,", (1, 2))
        if len(a) != len(b):
            form = f"as many numbers as `a` has rows, {len(a)}"
            checks.refuse("b", form, np.shape(b))
        self._a = np.asarray(a, float)
        self._right = self._a.T @ np.asarray(b, float)
        self._rho = 0.0
        self._factor: Any = None

    def __call__(self, v: np.ndarray, rho: float) -> np.ndarray:
        a = self._a
        rows, columns = a.shape
        if rho != self._rho:
            wide = rows < columns
            gram = a @ a.T if wide else a.T @ a
            gram[np.diag_indices_from(gram)] += rho
            self._rho, self._factor = rho, cho_factor(gram)
        q = self._right + rho * v
        if rows < columns:
            return (q - a.T @ cho_solve(self._factor, a @ q)) / rho
        return cho_solve(self._factor, q)
