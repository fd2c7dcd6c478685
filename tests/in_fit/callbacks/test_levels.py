"""Weights on levels: the best spacing, and training towards it with ADMM."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import ADMMPruning
from keras_lottery.in_fit.callbacks.admm import project
from keras_lottery.in_fit.callbacks.levels import Levels, best_spacing, on_levels
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model

bits_of = st.integers(2, 5)
seeds = st.integers(0, 10**6)


def drawn(seed, size=40):
    rng = np.random.default_rng(seed)
    return rng.normal(size=size) * rng.choice([0.1, 1.0, 5.0])


def error(weights, bits, spacing):
    return np.sum((on_levels(weights, bits, spacing) - weights) ** 2)


@pytest.mark.once
@given(seeds, bits_of, st.integers(1, 40))
def test_the_spacing_is_no_worse_than_any_of_a_fine_grid(seed, bits, size):
    weights = drawn(seed, size)
    best = error(weights, bits, best_spacing(weights, bits))
    grid = np.linspace(0, 1.5, 1501)[1:] * np.abs(weights).max()
    fine = min(error(weights, bits, sign * q) for q in grid for sign in (1, -1))
    assert best <= fine + 1e-9


@pytest.mark.once
@given(seeds, bits_of)
def test_levels_are_the_nearest_and_few(seed, bits):
    weights = drawn(seed, 300)
    spacing = best_spacing(weights, bits)
    found = on_levels(weights, bits, spacing)
    numbers = np.delete(np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)), 2 ** (bits - 1))
    away = np.abs(weights[:, None] - spacing * numbers).min(axis=1)
    np.testing.assert_allclose(np.abs(weights - found), away, atol=1e-12)
    assert len(np.unique(found)) <= 2**bits - 1 and (found != 0).all()
    # What is on levels stays there.
    again = on_levels(found, bits, best_spacing(found, bits))
    np.testing.assert_allclose(again, found, rtol=1e-12)


@pytest.mark.once
def test_weights_of_zero_have_one_level():
    assert best_spacing(np.zeros(3), 2) == 0
    assert on_levels(np.zeros(3), 2, 0.0).tolist() == [0, 0, 0]


@pytest.mark.once
@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_what_is_held_stays_held_and_is_the_nearest(seed, share, more):
    weights = {"a": drawn(seed)}
    kept = {"a": drawn(seed + 1) > -0.05}
    live = int(kept["a"].sum())
    levels = Levels({"a": 3})
    levels.hold(weights, kept, share)
    first = levels.held["a"]
    assert first.sum() == round(share * live) and not (first & ~kept["a"]).any()
    away = np.abs(levels.nearest(weights, kept)["a"] - weights["a"])
    if 0 < first.sum() < live:
        assert away[first].max() <= away[kept["a"] & ~first].min()
    levels.hold({"a": weights["a"][::-1].copy()}, kept, max(share, more))
    assert not (first & ~levels.held["a"]).any()


def regression():
    """A regression that is pruned to a half, in two layers."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(6, name="hidden"),
        keras.layers.Dense(4, name="output"),
    ]
    model = mask_model(keras.Sequential([keras.Input((5,)), *layers]))
    kl.prune(model, 0.5, allocation="uniform")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=False)
    return model


@functools.cache
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 5)), rng.normal(size=(24, 4))


def fit(model, *callbacks, epochs=8):
    model.fit(*data(), 8, epochs, verbose=0, callbacks=list(callbacks))


class Watch(keras.callbacks.Callback):
    """Keeps the weights after each step, and those of each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.states = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(get_state(self.model)["hidden/kernel"])

    def on_epoch_end(self, epoch, logs=None):
        self.states.append(get_state(self.model)["hidden/kernel"])


def test_weights_come_to_their_levels_round_by_round():
    model, watch = regression(), Watch()
    before = get_masks(model)
    admm = ADMMPruning(0.5, 0.5, 1.2, bits={"hidden*": 3, "*": 2}, rounds=3)
    fit(model, admm, watch)
    masks, state = get_masks(model), get_state(model)
    assert masks == before
    for name, most in {"hidden/kernel": 7, "output/kernel": 3}.items():
        values = np.unique(state[name][masks[name]])
        assert len(values) <= most and not (state[name][~masks[name]]).any()
        gaps = np.diff(values) / np.diff(values).min()
        np.testing.assert_allclose(gaps, gaps.round(), atol=1e-4)
    # Epoch 4 begins the first round of three, each with a quarter more of 15 weights.
    mask = masks["hidden/kernel"]
    at_end = [np.isclose(s[mask], state["hidden/kernel"][mask]) for s in watch.states]
    assert at_end[3].sum() >= 4 and at_end[-1].sum() >= 11
    assert not (at_end[3] & ~at_end[-1]).any()
    # In the last epoch but one, half of them do not move, the others do.
    first, *_, last = (step[mask] for step in watch.steps[6 * 3 : 7 * 3])
    assert 8 <= np.count_nonzero(first == last) <= 11


def test_levels_without_rounds_and_of_some_layers_alone():
    model = regression()
    fit(model, ADMMPruning(0.5, rho=0.5, bits={"output": 2}), epochs=2)
    masks, state = get_masks(model), get_state(model)
    values = {n: len(np.unique(state[n][mask])) for n, mask in masks.items()}
    assert values["output/kernel"] <= 3 and values["hidden/kernel"] == 15


@pytest.mark.once
def test_shared_levels_come_back_from_a_file(tmp_path):
    model = regression()
    fit(model, ADMMPruning(0.5, rho=0.5, bits=2), epochs=2)
    fit(model, kl.callbacks.SharedWeights(), epochs=2)
    report = kl.save_compressed(model, tmp_path / "levels.klc")
    again = get_state(kl.load_compressed(report.path))
    for name, array in get_state(model).items():
        np.testing.assert_array_equal(array, again[name])
    masks = get_masks(model)
    for name, number in report.values.items():
        assert number is None or number <= 3, name
    # Small kernels keep their values where a table of them would take more.
    bits = [2 if report.values[name] else 32 for name in masks]
    data_bits = [b * int(m.sum()) for b, m in zip(bits, masks.values(), strict=True)]
    assert report.data_bytes == sum(-(-each // 8) for each in data_bits)


def test_curvature_ranks_by_what_the_loss_would_lose():
    # The second input is hardly ever there: its weights are large and idle.
    x = np.random.default_rng(0).normal(size=(32, 2)) * [1.0, 0.01]
    y = x @ [[1.0], [0.0]]
    kept = {}
    for curvature in (False, True):
        dense = keras.layers.Dense(1, use_bias=False, name="dense")
        model = mask_model(keras.Sequential([keras.Input((2,)), dense]))
        model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
        start = np.array([[0.5], [2.0]], "float32")
        kl.set_state(model, get_state(model) | {"dense/kernel": start})
        admm = ADMMPruning(0.5, 1e-6, curvature=curvature)
        model.fit(x, y, 8, 1, verbose=0, callbacks=[admm])
        kept[curvature] = get_masks(model)["dense/kernel"].ravel().tolist()
    assert kept == {False: [False, True], True: [True, False]}


@pytest.mark.once
def test_a_projection_keeps_what_the_loss_needs():
    arrays = {"a": np.array([1.0, -2.0, 3.0])}
    masks = kl.Masks.dense({"a": (3,)})
    how = masks, 0.34, kl.allocation.Global(floor=0), Levels({"a": 2})
    curvature = {"a": np.array([9.0, 1.0, 0.1])}
    np.testing.assert_allclose(project(arrays, *how)["a"], [0, -2, 3], atol=0.51)
    assert project(arrays, *how, curvature)["a"][2] == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bits": 1}, r"bits=1"),
        ({"bits": {"conv": 7}}, r"bits\['conv'\]"),
        ({"bits": 2, "rounds": -1}, "rounds=-1"),
        ({"rounds": 2}, "rounds=2.*bits"),
        ({"curvature": 1}, "curvature=1"),
    ],
)
def test_wrong_arguments_are_named(arguments, error):
    with pytest.raises(ValueError, match=error):
        ADMMPruning(0.5, **arguments)


@pytest.mark.once
def test_a_pattern_that_matches_nothing_is_told_before_training():
    model = regression()
    with pytest.raises(ValueError, match="conv"):
        fit(model, ADMMPruning(0.5, bits={"conv*": 3}), epochs=1)
