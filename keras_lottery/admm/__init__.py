"""The alternating direction method of multipliers, on NumPy arrays.

It minimises f(x) + g(z) where x = z, by turns: x near z - u, then z near x + u, then
u += x - z. `Split` is one such turn, for a caller that finds x itself; `solve` and
`consensus` go on until it has converged, and `stochastic` takes gradients of f.

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
