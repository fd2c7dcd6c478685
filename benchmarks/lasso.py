"""ADMM on convex problems whose optimum is known: the lasso, consensus, gradients.

    OMP_NUM_THREADS=1 python benchmarks/lasso.py [--sizes 150x500 1500x5000]
                      [--replicates 3]

The first part is the lasso of Boyd et al. 2011, section 11.1: 2 % of the coefficients
are not zero, and λ is a tenth of the smallest value that makes all of them zero.
Objective and coefficients are compared with those of scikit-learn; *gap* is the excess
of the objective over that of scikit-learn, as a share of the latter. The second part is
stochastic ADMM (Ouyang et al. 2013) on 1,000 examples of 50 features, in mini-batches
of 10: the slope of log gap against log step, from 100 to 12,800 steps.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.linear_model import Lasso

from keras_lottery.admm import (
    LeastSquares,
    Result,
    consensus,
    inverse,
    inverse_root,
    soft_threshold,
    solve,
    stochastic,
)

TIGHT = {"absolute": 1e-10, "relative": 1e-8}
WAYS: dict[str, dict] = {
    "Boyd's tolerances": {},
    "the same, relaxation 1.5": {"relaxation": 1.5},
    "tight": TIGHT,
    "tight, relaxation 1.5": {"relaxation": 1.5} | TIGHT,
    "tight, rho adapts from 100": {"rho": 100.0, "adaptive": True} | TIGHT,
    "tight, consensus of 4 blocks": {"blocks": 4} | TIGHT,
}
STEPS = [100 * 2**k for k in range(8)]


class Problem:
    """A lasso problem, and its optimum by scikit-learn."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        truth = np.zeros(columns)
        live = rng.choice(columns, columns // 50, replace=False)
        truth[live] = rng.normal(size=len(live))
        self.a = rng.normal(size=(rows, columns))
        self.a /= np.linalg.norm(self.a, axis=0)
        self.b = self.a @ truth + np.sqrt(0.001) * rng.normal(size=rows)
        self.penalty = 0.1 * np.abs(self.a.T @ self.b).max()
        lasso = Lasso(
            self.penalty / rows, fit_intercept=False, tol=1e-12, max_iter=100_000
        )
        self.best = lasso.fit(self.a, self.b).coef_

    def objective(self, x: np.ndarray) -> float:
        residual = self.a @ x - self.b
        return residual @ residual / 2 + self.penalty * np.abs(x).sum()

    def prox_g(self, v: np.ndarray, rho: float) -> np.ndarray:
        return soft_threshold(v, self.penalty / rho)

    def solve(self, blocks: int = 1, **how: float) -> Result:
        start = np.zeros(self.a.shape[1])
        parts = np.array_split(np.arange(len(self.a)), blocks)
        proxes = [LeastSquares(self.a[rows], self.b[rows]) for rows in parts]
        if blocks > 1:
            return consensus(proxes, self.prox_g, start, **how)
        return solve(proxes[0], self.prox_g, start, **how)  # type: ignore[arg-type]


def lasso_row(problem: Problem, how: dict) -> dict[str, float]:
    began = time.perf_counter()
    result = problem.solve(**how)
    seconds = time.perf_counter() - began
    return {
        "iterations": len(result.residuals),
        "gap": problem.objective(result.z) / problem.objective(problem.best) - 1,
        "largest difference": np.abs(result.z - problem.best).max(),
        "seconds": seconds,
    }


def slope(step_size: Callable[[float], Callable[[int], float]], seed: int) -> float:
    """The slope of log gap against log step; the step size uses strong convexity."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(1000, 50))
    b = a @ (rng.normal(size=50) * (rng.random(50) < 0.3)) + rng.normal(size=1000)

    def prox_g(v: np.ndarray, rho: float) -> np.ndarray:
        return soft_threshold(v, 0.1 / rho)

    def value(x: np.ndarray) -> float:
        return np.mean((a @ x - b) ** 2) / 2 + 0.1 * np.abs(x).sum()

    def gradient(x: np.ndarray) -> np.ndarray:
        rows = rng.integers(1000, size=10)
        return a[rows].T @ (a[rows] @ x - b[rows]) / 10

    mean = LeastSquares(a / 1000**0.5, b / 1000**0.5)
    lowest = value(solve(mean, prox_g, np.zeros(50), **TIGHT).z)
    gaps = {}

    def keep(k: int, averages) -> None:
        if k in STEPS:
            gaps[k] = value(averages.z) - lowest

    rule = step_size(float(np.linalg.eigvalsh(a.T @ a / 1000)[0]))
    stochastic(gradient, prox_g, np.zeros(50), rule, STEPS[-1], callback=keep)
    return np.polyfit(np.log(list(gaps)), np.log(list(gaps.values())), 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="*", default=["150x500", "1500x5000"])
    parser.add_argument("--replicates", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for size in options.sizes:
        for seed in range(options.replicates):
            problem = Problem(*map(int, size.split("x")), seed)
            for name, how in WAYS.items():
                rows.append({"size": size, "way": name, **lasso_row(problem, how)})
    table = pd.DataFrame(rows).groupby(["size", "way"], sort=False)
    print(f"Median of {options.replicates} replicates, and the largest gap")
    medians = table.median().assign(**{"largest gap": table["gap"].max()})
    print(medians.map(lambda number: f"{number:.3g}").to_string())
    rules = {
        "0.1 / sqrt(k)": lambda convexity: inverse_root(0.1),
        "1 / (mu k)": inverse,
    }
    for name, rule in rules.items():
        slopes = [slope(rule, seed) for seed in range(options.replicates)]
        print(f"Slope by {name}: {', '.join(f'{one:.2f}' for one in slopes)}")


if __name__ == "__main__":
    main()
