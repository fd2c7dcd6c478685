"""The alternating direction method of multipliers, on NumPy arrays.

ADMM minimises f(x) + g(z) subject to x = z. Each iteration finds x near z - u, then z
near x + u, and then sets u += x - z. `Split` is one such iteration, for a caller that
finds x itself. `solve` and `consensus` iterate until ADMM has converged, and
`stochastic` uses gradients of f.

Reference:
    Boyd et al. 2011, "Distributed optimization and statistical learning via the
    alternating direction method of multipliers".
"""

from keras_lottery.admm.proximal import LeastSquares, Prox, soft_threshold
from keras_lottery.admm.solver import Residual, Result, consensus, solve
from keras_lottery.admm.split import Split
from keras_lottery.admm.stochastic import Averages, inverse, inverse_root, stochastic

__all__ = [
    "Averages",
    "LeastSquares",
    "Prox",
    "Residual",
    "Result",
    "Split",
    "consensus",
    "inverse",
    "inverse_root",
    "soft_threshold",
    "solve",
    "stochastic",
]
