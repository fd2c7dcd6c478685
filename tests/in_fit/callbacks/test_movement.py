"""Movement pruning: what is added up, and what it prunes."""

import keras
import numpy as np
import pytest

import keras_lottery as kl
from tests.models_zoo import as_array, cases

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")


def network(optimizer=None):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, name="one"), keras.layers.Dense(2, name="two")]
    model = kl.mask_model(keras.Sequential([keras.Input((6,)), *layers]))
    model.compile(optimizer or keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    return model


def fit(model, callback, epochs=1):
    model.fit(X, Y, 4, epochs, shuffle=False, verbose=0, callbacks=[callback])


def movement(model, steps):
    """-Σ w ∂L/∂w of plain gradient descent, by finite differences of its steps."""
    total = {name: 0.0 for name in kl.get_masks(model)}
    for step in range(steps):
        before = kl.get_state(model)
        rows = slice(4 * step, 4 * step + 4)
        model.train_on_batch(X[rows], Y[rows])
        after = kl.get_state(model)
        for name in total:
            total[name] += before[name] * (after[name] - before[name]) / 0.05
    return total


def test_scores_are_the_sum_of_weight_times_descent():
    expected = movement(network(), 6)
    callback = kl.MovementPruning(0.5, 6, 6)
    model = network()
    fit(model, callback)
    for name, array in expected.items():
        assert np.allclose(
            callback._moved[name], array, atol=1e-3 * np.abs(array).max()
        )
    kept = np.concatenate([m.ravel() for m in kl.get_masks(model).values()])
    every = np.concatenate([array.ravel() for array in expected.values()])
    assert kept.sum() == kept.size // 2
    assert every[kept].min() >= every[~kept].max() - 1e-3


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(1e-2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.05), initial_scale=64.0
    ),
}


@pytest.mark.parametrize("name", cases(OPTIMIZERS, ["adam"]))
def test_observing_changes_nothing_of_the_training(name):
    plain, observed = (network(OPTIMIZERS[name]()) for _ in range(2))
    fit(plain, keras.callbacks.Callback())
    callback = kl.MovementPruning(0.5, 50, 100)
    with pytest.warns(UserWarning, match="Training ended after 6 steps"):
        fit(observed, callback)
    for name, array in kl.get_state(plain).items():
        assert np.array_equal(array, kl.get_state(observed)[name]), name
    assert len(plain.optimizer.variables) == len(observed.optimizer.variables)


@pytest.mark.once
@pytest.mark.parametrize("granularity", ["block_1x4", "filter"])
def test_groups_go_together(granularity):
    model = network()
    fit(model, kl.MovementPruning(0.5, 2, 4, 1, granularity=granularity))
    mask = kl.get_masks(model)["one/kernel"]
    if granularity == "filter":
        assert mask.all(axis=0).sum() == mask.any(axis=0).sum() == 4
    assert kl.get_sparsity(model) >= 0.4
    assert not as_array(model.get_layer("one").kernel)[~mask].any()


@pytest.mark.once
def test_arguments_are_checked_and_stored():
    with pytest.raises(ValueError, match="begin_step"):
        kl.MovementPruning(0.5, 0, 10)
    callback = kl.MovementPruning(0.5, 1, 10, granularity="2:4")
    config = callback.get_config()
    assert kl.MovementPruning.from_config(config).get_config() == config


@pytest.mark.once
def test_a_training_that_is_past_the_first_pruning_is_refused():
    model = network()
    fit(model, keras.callbacks.Callback())
    with pytest.raises(ValueError, match="begin_step=2, and an optimizer"):
        fit(model, kl.MovementPruning(0.5, 2, 10))
    with pytest.raises(ValueError, match="`bits`"):
        kl.ADMMPruning(0.5, bits={})
