"""ADMM by gradients of mini-batches: its rates and its averages."""

import numpy as np
import pytest

from keras_lottery.admm import (
    LeastSquares,
    inverse,
    inverse_root,
    soft_threshold,
    solve,
    stochastic,
)

pytestmark = pytest.mark.once


def regression():
    """A strongly convex f of 1,000 examples, and the optimum of f + g."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1000, 50))
    b = a @ (rng.normal(size=50) * (rng.random(50) < 0.3)) + rng.normal(size=1000)
    penalty = 0.1

    def prox_g(v, rho):
        return soft_threshold(v, penalty / rho)

    # f is the mean over examples.
    mean = LeastSquares(a / 1000**0.5, b / 1000**0.5)
    tight = solve(mean, prox_g, np.zeros(50), absolute=1e-10, relative=1e-8)

    def value(x):
        return np.mean((a @ x - b) ** 2) / 2 + penalty * np.abs(x).sum()

    def gradient(x):
        rows = rng.integers(1000, size=10)
        return a[rows].T @ (a[rows] @ x - b[rows]) / 10

    convexity = np.linalg.eigvalsh(a.T @ a / 1000)[0]
    return prox_g, gradient, convexity, lambda x: value(x) - value(tight.z)


@pytest.mark.parametrize(("rule", "slope"), [("root", -0.5), ("inverse", -0.9)])
def test_stochastic_gaps_fall_as_the_theorems_say(rule, slope):
    prox_g, gradient, convexity, gap = regression()
    step_size = inverse_root(0.1) if rule == "root" else inverse(convexity)
    gaps = {}

    def keep(k, averages):
        if k in (100, 200, 400, 800, 1600, 3200):
            gaps[k] = gap(averages.z)

    averages = stochastic(
        gradient, prox_g, np.zeros(50), step_size, 3200, callback=keep
    )
    fitted = np.polyfit(np.log(list(gaps)), np.log(list(gaps.values())), 1)[0]
    assert fitted <= slope
    assert np.abs(averages.x - averages.z).max() < 0.05


def test_the_averages_are_those_of_the_iterates():
    # By hand, of f = x²/2 and g = 0: z = x + u, so that u stays zero and z = x.
    x, xs, zs = 4.0, [], []
    for k in range(1, 4):
        xs.append(x)
        x = (x * k + 2.0 * x - x) / (k + 2.0)
        zs.append(x)
    averages = stochastic(
        lambda x: x, lambda v, rho: v, np.array([4.0]), inverse(1.0), 3, rho=2.0
    )
    np.testing.assert_allclose(averages.x, np.mean(xs))
    np.testing.assert_allclose(averages.z, np.mean(zs))


def test_steps_that_are_too_large_are_told():
    def large(k):
        return 1e200

    with pytest.raises(ValueError, match=r"step_size\(\d+\)=1e\+200"):
        stochastic(lambda x: np.full(1, np.inf), lambda v, rho: v, np.ones(1), large, 9)
