"""ADMM on convex problems, whose optimum is known."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.admm import (
    LeastSquares,
    Split,
    consensus,
    soft_threshold,
    solve,
)

pytestmark = pytest.mark.once


@functools.cache
def lasso(rows=150, columns=500, seed=0):
    """Boyd et al.'s lasso (section 11.1), and scikit-learn's optimum of it."""
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(seed)
    truth = np.zeros(columns)
    live = rng.choice(columns, columns // 50, replace=False)
    truth[live] = rng.normal(size=len(live))
    a = rng.normal(size=(rows, columns))
    a /= np.linalg.norm(a, axis=0)
    b = a @ truth + np.sqrt(0.001) * rng.normal(size=rows)
    penalty = 0.1 * np.abs(a.T @ b).max()
    model = Lasso(penalty / rows, fit_intercept=False, tol=1e-12, max_iter=100_000)
    return a, b, penalty, model.fit(a, b).coef_


def objective(x, a, b, penalty):
    return 0.5 * np.sum((a @ x - b) ** 2) + penalty * np.abs(x).sum()


def solved(by=solve, blocks=1, **how):
    a, b, penalty, best = lasso()

    def prox_g(v, rho):
        return soft_threshold(v, penalty / rho)

    parts = np.array_split(np.arange(len(a)), blocks)
    proxes = [LeastSquares(a[rows], b[rows]) for rows in parts]
    prox_f = proxes if by is consensus else proxes[0]
    result = by(prox_f, prox_g, np.zeros(a.shape[1]), **how)
    lowest = objective(best, a, b, penalty)
    gap = objective(result.z, a, b, penalty) / lowest - 1
    return result, gap, np.abs(result.z - best).max()


TIGHT = {"absolute": 1e-10, "relative": 1e-8}


@pytest.mark.parametrize("relaxation", [1.0, 1.5, 1.8])
def test_the_lasso_of_boyd(relaxation):
    result, gap, _ = solved(relaxation=relaxation)
    assert result.converged
    assert len(result.residuals) < 30  # 10 to 20 in the paper
    # 0.5e-4 to 5.1e-4 over six seeds; benchmarks/lasso.py has the sizes of the paper.
    assert 0 <= gap <= 6e-4
    result, gap, apart = solved(relaxation=relaxation, **TIGHT)
    assert abs(gap) <= 1e-8
    assert apart < 1e-6


def test_over_relaxation_takes_fewer_iterations():
    plain, relaxed = (solved(relaxation=r, **TIGHT)[0] for r in (1.0, 1.5))
    assert len(relaxed.residuals) < len(plain.residuals)


@pytest.mark.parametrize("rho", [1e-3, 1e3])
def test_rho_adapts_to_residuals_and_u_with_it(rho):
    adapted, gap, _ = solved(rho=rho, adaptive=True, max_iterations=500, **TIGHT)
    rhos = [residual.rho for residual in adapted.residuals]
    assert adapted.converged and abs(gap) <= 1e-8
    assert rhos[0] == rho and 0.1 < rhos[-1] < 10
    with pytest.warns(UserWarning, match="has not converged in max_iterations=500"):
        solved(rho=rho, max_iterations=500, **TIGHT)


def test_consensus_of_four_blocks_has_the_same_optimum():
    result, gap, apart = solved(consensus, blocks=4, **TIGHT)
    assert abs(gap) <= 1e-8 and apart < 1e-6
    assert result.x.shape == (4, *result.z.shape)
    np.testing.assert_allclose(result.x, result.x[:1].repeat(4, axis=0), atol=1e-6)


def test_arrays_by_name_are_one_vector():
    a, b, penalty, _ = lasso()
    whole = solved()[0]
    prox = LeastSquares(a, b)

    def prox_f(v, rho):
        x = prox(np.concatenate([v["one"], v["two"]]), rho)
        return {"one": x[:100], "two": x[100:]}

    def prox_g(v, rho):
        return {name: soft_threshold(part, penalty / rho) for name, part in v.items()}

    result = solve(prox_f, prox_g, {"one": np.zeros(100), "two": np.zeros(400)})
    np.testing.assert_allclose(result.z["two"], whole.z[100:])
    np.testing.assert_allclose(result.residuals, whole.residuals)


floats = st.floats(-5, 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0.5, 4))
def test_a_new_rho_leaves_the_dual_variable(seed, rho, factor):
    rng = np.random.default_rng(seed)
    split = Split({"w": rng.normal(size=4)}, {"w": rng.normal(size=4)}, rho)
    dual = rho * split.u["w"]
    split.scale(factor)
    assert split.rho == rho * factor
    np.testing.assert_allclose(split.rho * split.u["w"], dual)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 8), st.floats(0.1, 10))
def test_least_squares_is_where_the_gradient_is_zero(seed, rows, columns, rho):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, columns)), rng.normal(size=(rows, 2))
    v = rng.normal(size=(columns, 2))
    prox = LeastSquares(a, b)
    for weight in (rho, 2 * rho):
        x = prox(v, weight)
        np.testing.assert_allclose(a.T @ (a @ x - b) + weight * (x - v), 0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(floats, min_size=1, max_size=5), st.floats(0, 3), floats)
def test_soft_threshold_is_the_proximal_operator(values, amount, other):
    v = np.array(values)

    def value(x):
        return amount * np.abs(x) + 0.5 * (x - v) ** 2

    assert (value(soft_threshold(v, amount)) <= value(other) + 1e-12).all()


def test_a_proximal_operator_keeps_the_shape():
    with pytest.raises(ValueError, match=r"`prox_g`.*shape \(3,\).*prox_g=\(3, 1\)"):
        solve(lambda v, rho: v, lambda v, rho: v[:, None], np.zeros(3))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("relaxation", 2.0), ("rho", 0.0), ("start", [np.nan]), ("max_iterations", 0)],
)
def test_wrong_arguments_are_named(argument, value):
    good = {"prox_f": abs, "prox_g": abs, "start": np.zeros(1)}
    with pytest.raises(ValueError, match=f"`{argument}`"):
        solve(**{**good, argument: value})
