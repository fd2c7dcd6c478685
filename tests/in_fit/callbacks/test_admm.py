"""ADMM: its updates, the gradients in `fit`, and what it leaves behind."""

import functools
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import ADMMPruning, Masks
from keras_lottery.in_fit.callbacks.admm import project
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    set_masks,
    set_state,
)
from keras_lottery.tickets.grouping import Grouped
from tests.models_zoo import arrays, assert_equal, cnn, compiled, fit, mlp, scramble

RATE = 0.1
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = RNG.normal(size=(8, 4)).astype("float32")
STEPS = 3  # an epoch, each on all of the data


@functools.cache
def regressions():
    """A linear regression for each optimizer, and where it starts."""
    optimizers = {
        "plain": keras.optimizers.SGD(RATE),
        "scaled": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE)),
        "factor": keras.optimizers.SGD(RATE, loss_scale_factor=8.0),
    }
    models = {}
    for name, optimizer in optimizers.items():
        dense = keras.layers.Dense(4, use_bias=False, name="dense")
        model = mask_model(keras.Sequential([keras.Input((5,)), dense]))
        models[name] = compiled(scramble(model), optimizer)
    return models, get_masks(model), get_state(model)


def regression(optimizer="plain"):
    models, masks, state = regressions()
    set_masks(models[optimizer], masks)
    set_state(models[optimizer], state)
    return models[optimizer]


def run(model, callbacks=(), epochs=2):
    x, y = np.concatenate([X] * STEPS), np.concatenate([Y] * STEPS)
    return model.fit(x, y, 8, epochs, verbose=0, shuffle=False, callbacks=[*callbacks])


def kernel(model):
    return get_state(model)["dense/kernel"]


def largest(array, keep):
    mask = np.zeros(array.size, bool)
    mask[np.argsort(-np.abs(array), axis=None)[:keep]] = True
    return mask.reshape(array.shape)


def by_hand(steps, keep, rho=0.0, growth=1.0, frequency=STEPS):
    """Gradient descent on the augmented Lagrangian, in NumPy."""
    w = regressions()[2]["dense/kernel"].astype(float)
    z, u, losses, residuals = np.where(largest(w, keep), w, 0), 0 * w, [], []
    for step in range(1, steps + 1):
        losses.append(np.mean((X @ w - Y) ** 2))
        gradient = 2 * X.T @ (X @ w - Y) / Y.size
        w = w - RATE * (gradient + rho * (w - z + u))
        if step % frequency == 0 or step == steps:
            moved = w + u
            z = np.where(largest(moved, keep), moved, 0)
            u, rho = (moved - z) / growth, rho * growth
            residuals.append(np.linalg.norm(w - z) / np.linalg.norm(w))
    return w, z, losses, residuals


@pytest.mark.parametrize(
    "arguments",
    [
        {"rho": 0.5},
        {"rho": 0.2, "growth": 3.0, "frequency": 1},
        {"rho": 1.0, "growth": 1.5, "frequency": 4},
    ],
)
def test_fit_descends_the_augmented_lagrangian(arguments):
    model, callback = regression(), ADMMPruning(0.7, **arguments)
    history = run(model, [callback])
    w, z, losses, residuals = by_hand(2 * STEPS, 6, **arguments)
    assert get_masks(model)["dense/kernel"].tolist() == (z != 0).tolist()
    np.testing.assert_allclose(kernel(model), np.where(z, w, 0), atol=1e-5)
    np.testing.assert_allclose(callback.residuals, residuals, atol=1e-5)
    # The loss that Keras reports is the task's.
    epochs = np.reshape(losses, (2, STEPS)).mean(axis=1)
    np.testing.assert_allclose(history.history["loss"], epochs, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["scaled", "factor"])
def test_gradients_that_are_scaled(optimizer):
    model = regression(optimizer)
    run(model, [ADMMPruning(0.7, rho=0.5)])
    w, z, *_ = by_hand(2 * STEPS, 6, rho=0.5)
    np.testing.assert_allclose(kernel(model), np.where(z, w, 0), atol=1e-5)
    run(model, epochs=1)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def left_behind(model):
    overridden = {"apply", "save_own_variables"} & set(vars(model.optimizer))
    return overridden | ({"make_train_function"} & set(vars(model)))


@pytest.mark.parametrize("interrupted", [False, True])
def test_nothing_is_left_behind(interrupted):
    model = regression()
    run(model, epochs=1)
    variables = [id(v) for v in [*model.variables, *model.optimizer.variables]]
    if interrupted:
        # It trains as if there had never been a callback.
        with pytest.raises(KeyboardInterrupt):
            run(model, [ADMMPruning(0.7, rho=5.0), Interrupt()])
        assert left_behind(model)
        assert get_masks(model).sparsity == 0
        set_state(model, regressions()[2])
        run(model)
        expected, *_ = by_hand(2 * STEPS, 6)
        np.testing.assert_allclose(kernel(model), expected, atol=1e-5)
    else:
        run(model, [ADMMPruning(0.7, rho=5.0)])
        mask, w = get_masks(model)["dense/kernel"], kernel(model).astype(float)
        run(model, epochs=1)
        for _ in range(STEPS):
            w -= RATE * mask * (2 * X.T @ (X @ w - Y) / Y.size)
        np.testing.assert_allclose(kernel(model), w, atol=1e-5)
    assert not left_behind(model)
    assert variables == [id(v) for v in [*model.variables, *model.optimizer.variables]]


@pytest.mark.once
def test_a_callback_serves_again_after_an_interruption():
    model, callback = regression(), ADMMPruning(0.7, rho=0.5)
    with pytest.raises(KeyboardInterrupt):
        run(model, [callback, Interrupt()])
    model = regression()
    run(model, [callback])
    w, z, *_ = by_hand(2 * STEPS, 6, rho=0.5)
    np.testing.assert_allclose(kernel(model), np.where(z, w, 0), atol=1e-5)
    assert len(callback.residuals) == 2
    assert not left_behind(model)


def test_files_saved_on_the_way_hold_the_model_alone(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = mask_model(compiled(scramble(mlp()), "adam"))
    saving = keras.callbacks.ModelCheckpoint(path)
    fit(model, epochs=2, callbacks=[saving, ADMMPruning(0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = keras.models.load_model(tmp_path / "1.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert int(loaded.optimizer.iterations.numpy()) == 4
    assert [w.shape for w in loaded.weights] == [w.shape for w in model.weights]
    assert get_masks(loaded).sparsity == 0
    fit(loaded)


@pytest.mark.once
def test_weights_come_to_their_sparse_copies_on_digits():
    splits = kl.data.load("digits")
    model = mask_model(kl.models.lenet_300_100(splits.input_shape, seed=0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    callback = ADMMPruning(0.9, rho=1e-2, growth=1.4)
    model.fit(*splits.train, 32, 12, callbacks=[callback], verbose=0)
    residuals = callback.residuals
    assert len(residuals) == 12
    assert residuals[-1] < 0.5 * residuals[0]
    assert (np.diff(residuals[4::2]) < 0).all()  # from when it has learnt the digits
    masks, state = get_masks(model), get_state(model)
    assert masks.kept == round(masks.size * 0.1)
    assert all((state[name][mask] != 0).all() for name, mask in masks.items())
    assert model.evaluate(*splits.test, verbose=0)[1] > 0.9


@pytest.mark.once
def test_layers_of_their_own_rates():
    model = compiled(mask_model(scramble(mlp())))
    rates = kl.allocation.Layerwise({"dense": 0.75}, rate=0.5)
    sparsity = rates.total_sparsity(0.5, get_masks(model))
    fit(model, epochs=2, callbacks=[ADMMPruning(sparsity, allocation=rates)])
    assert [int(mask.sum()) for mask in get_masks(model).values()] == [6, 6]


@pytest.mark.once
@pytest.mark.parametrize(
    ("last", "granularity"), [(False, "weight"), (True, "block_1x4")]
)
def test_weights_put_back_are_pruned(last, granularity):
    model = compiled(mask_model(scramble(mlp())))
    stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    callbacks = [ADMMPruning(0.5, granularity=granularity), stop]
    fit(model, epochs=2, callbacks=callbacks if last else callbacks[::-1])
    assert get_masks(model).sparsity == pytest.approx(0.5, abs=0.06)


# What is whole in a kernel (inputs, outputs), by slices of it.
STRUCTURES = {
    "column": lambda kernel: kernel,
    "block_1x4": lambda kernel: np.concatenate(
        [kernel[i : i + 4, [j]].reshape(1, 4) for i in (0, 4) for j in range(6)]
    ),
}


@pytest.mark.parametrize("granularity", [*STRUCTURES, "2:4"])
def test_structures_are_the_groupings_own_choice(granularity):
    rng = np.random.default_rng(0)
    arrays = {"kernel": rng.normal(size=(8, 6))}
    masks = Masks.dense({"kernel": (8, 6)})
    choice = kl.grouping.get(granularity).of(None, masks)
    allocation = Grouped(kl.allocation.Global(floor=0), choice)
    z = project(arrays, masks, 0.5, allocation)["kernel"]
    assert np.count_nonzero(z) == 24
    kept = z != 0
    np.testing.assert_array_equal(z[kept], arrays["kernel"][kept])
    if granularity == "2:4":
        assert (kept.reshape(2, 4, 6).sum(axis=1) == 2).all()
        sizes = np.sort(np.abs(arrays["kernel"]).reshape(2, 4, 6), axis=1)
        nearest = np.sum(sizes[:, :2] ** 2)
    else:
        wholes = STRUCTURES[granularity]
        assert (wholes(kept).all(axis=1) | ~wholes(kept).any(axis=1)).all()
        energies = np.sort(np.sum(wholes(arrays["kernel"]) ** 2, axis=1))
        nearest = energies[: len(energies) // 2].sum()
    # No other point of that structure is nearer.
    assert np.sum((z - arrays["kernel"]) ** 2) == pytest.approx(nearest)


@pytest.mark.once
@pytest.mark.parametrize("granularity", ["column", "2:4"])
def test_training_ends_in_the_structure(granularity):
    model = compiled(mask_model(scramble(cnn())))
    fit(model, epochs=2, callbacks=[ADMMPruning(0.5, granularity=granularity)])
    masks = get_masks(model)
    again = Masks(masks)
    kl.prune(model, masks.sparsity, granularity=granularity)
    assert get_masks(model) == again  # It is in that structure already.
    assert masks.sparsity == pytest.approx(0.5, abs=0.1)


@pytest.mark.once
def test_whole_filters_and_a_model_that_was_pruned_before():
    model = compiled(mask_model(scramble(cnn())))
    kl.prune(model, 0.25, granularity="filter")
    before = get_masks(model)
    fit(model, epochs=2, callbacks=[ADMMPruning(0.5, granularity="filter")])
    masks = get_masks(model)
    (alive,) = kl.grouping.get("filter").of(model, masks).left(masks).values()
    assert alive.sum() == 2
    assert not any((m & ~before[name]).any() for name, m in get_masks(model).items())


sizes = st.integers(1, 30)


@pytest.mark.once
@settings(max_examples=20)
@given(sizes, sizes, st.integers(0, 99), st.integers(0, 1000))
def test_projection_is_the_nearest_with_so_many_weights(one, other, percent, seed):
    rng = np.random.default_rng(seed)
    arrays = {"a": rng.normal(size=one), "b": rng.normal(size=(other, 1))}
    masks = Masks({n: rng.random(a.shape) < 0.9 for n, a in arrays.items()})
    keep = round(masks.size * (1 - percent / 100))
    if not 0 < keep <= masks.kept:
        return
    z = project(arrays, masks, percent / 100, kl.allocation.Global(floor=0))
    assert sum(np.count_nonzero(array) for array in z.values()) == keep
    values = np.concatenate([(arrays[n] * masks[n]).ravel() for n in arrays])
    nearest = np.sum(np.sort(values**2)[: values.size - keep])
    assert np.sum((np.concatenate([z[n].ravel() for n in z]) - values) ** 2) == (
        pytest.approx(nearest)
    )


@pytest.mark.once
def test_an_unmasked_model_is_refused_before_it_trains():
    model = compiled(mlp())
    before = arrays(model)
    with pytest.raises(ValueError, match="ADMMPruning needs a masked model"):
        fit(model, callbacks=[ADMMPruning(0.5)])
    assert_equal(arrays(model), before)


@pytest.mark.once
def test_config_round_trip():
    arguments = {
        "sparsity": 0.9,
        "rho": 0.01,
        "growth": 1.5,
        "frequency": 7,
        "allocation": "erk",
        "granularity": "block_1x4",
        "bits": {"*": 3},
        "rounds": 2,
        "curvature": True,
    }
    callback = ADMMPruning(**arguments)
    assert callback.get_config() == arguments
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(callback)
    )
    assert isinstance(again, ADMMPruning)
    assert again.get_config() == arguments
    with pytest.raises(ValueError, match="allocation=<function"):
        ADMMPruning(0.5, allocation=lambda *_: None).get_config()


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"rho": 0.0},
        {"growth": 0.5},
        {"frequency": 0},
        {"allocation": "typo"},
        {"granularity": "typo"},
    ],
)
def test_wrong_arguments_are_named(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        ADMMPruning(**({"sparsity": 0.5} | arguments))
