"""Masked training against the dense network's, with mask and gradient multiplied."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

from keras_lottery.keras_bridge.gradients import gradients
from keras_lottery.keras_bridge.internals.models import compute_loss
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
    set_masks,
    set_state,
)
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.pruning import prune
from tests.models_zoo import compiled, mlp, scramble


@keras.saving.register_keras_serializable("tests")
class Centred(keras.constraints.Constraint):
    """Moves zeros."""

    def __call__(self, w):
        return w - keras.ops.mean(w, axis=0)


ORTHOGONAL = regularizers.OrthogonalRegularizer(0.1)


def network(regularizer, constraint):
    how = {"kernel_regularizer": regularizer, "kernel_constraint": constraint}
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, "tanh", name="hidden", **how),
            layers.Dense(2, name="output", **how),
        ]
    )


def total_loss(model, x, y):
    return compute_loss(model, x, y, model(x, training=True))


def trained_dense(model, masks, state, x, y, batch, epochs):
    """The states that multiplying weights and gradients by the masks gives."""
    set_state(model, state)
    names = [f"{layer.name}/{w.name}" for layer in model.layers for w in layer.weights]
    model.optimizer.build(model.trainable_variables)
    for _ in range(epochs):
        for start in range(0, len(x), batch):
            part = slice(start, start + batch)
            found = gradients(model, x[part], y[part], scalar=total_loss)
            slopes = [found[n] * masks.get(n, np.float32(1)) for n in names]
            model.optimizer.apply([keras.ops.convert_to_tensor(g) for g in slopes])
            after = get_state(model)
            set_state(model, {n: a * masks.get(n, 1) for n, a in after.items()})
    return get_state(model)


@pytest.mark.parametrize(
    ("regularizer", "optimizer", "clip", "constraint"),
    [
        (regularizers.L1(0.02), "SGD", {"clipnorm": 0.3}, None),
        (regularizers.L1(0.02), "SGD", {"global_clipnorm": 0.3}, "max_norm"),
        (regularizers.L1L2(0.02, 0.02), "Adam", {"clipnorm": 0.1}, Centred()),
        (
            ORTHOGONAL,
            "SGD",
            {"global_clipnorm": 0.3},
            None,
        ),
        (ORTHOGONAL, "RMSprop", {}, Centred()),
    ],
)
def test_pruned_weights_count_for_nothing(regularizer, optimizer, clip, constraint):
    """In penalties, norms, constraints and slots."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(12, n)).astype("float32") for n in (8, 2))
    plain = scramble(network(regularizer, constraint))
    make_optimizer = lambda: getattr(keras.optimizers, optimizer)(0.3, **clip)  # noqa: E731
    plain.compile(make_optimizer(), "mse")
    model = mask_model(plain)
    prune(model, 0.5)
    masks, state = get_masks(model), get_state(model)
    numbers = {name: mask.astype("float32") for name, mask in masks.items()}
    expected = trained_dense(plain, numbers, state, x, y, 4, epochs=3)
    model.fit(x, y, 4, epochs=3, shuffle=False, verbose=0)
    for name, array in get_state(model).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)
        assert (array != state[name]).any()
    for mask, weight in named_masks(model).values():
        assert not read(weight)[~read(mask)].any()
    penalty = sum(
        float(regularizer(array * numbers[n]))
        for n, array in expected.items()
        if n in masks
    )
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-4)


@pytest.mark.parametrize("name", ["Ftrl", "Adagrad"])
def test_accumulators_start_anew_where_masks_change(name):
    class Regrow(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            masks = get_masks(self.model)
            new = {n: np.roll(mask, batch) for n, mask in masks.items()}
            set_masks(self.model, new)

    model = compiled(scramble(mlp()), getattr(keras.optimizers, name)(0.05))
    model = mask_model(model)
    prune(model, 0.5)
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    model.fit(x, y, 2, epochs=2, verbose=0, callbacks=[Regrow()])
    assert all(np.isfinite(array).all() for array in get_state(model).values())
    masks = get_masks(model)
    set_masks(model, {n: np.zeros_like(mask) for n, mask in masks.items()})
    slots = [s for s in model.optimizer.variables if tuple(s.shape) == (4, 6)]
    assert {float(value) for value in read(slots[0]).ravel()} == {np.float32(0.1)}


@pytest.mark.once
@pytest.mark.parametrize("epsilon", [1e-30, 1e-16])
def test_adafactor_has_an_epsilon_for_sparse_kernels(epsilon):
    """Keras's own gives NaN where rows and columns have no gradient."""
    model = scramble(mlp())
    model.compile(keras.optimizers.Adafactor(0.05, epsilon_1=epsilon), "mse")
    model = mask_model(model)
    masks = {n: np.ones(mask.shape, bool) for n, mask in get_masks(model).items()}
    masks["dense/kernel"][:2] = masks["dense/kernel"][:, :2] = False
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    if epsilon == 1e-30:
        with pytest.warns(UserWarning, match=r"epsilon_1=1e-30.*epsilon_1=1e-16"):
            set_masks(model, masks)
    else:
        set_masks(model, masks)
    model.fit(x, y, 4, epochs=2, verbose=0)
    finite = all(np.isfinite(array).all() for array in get_state(model).values())
    assert finite == (epsilon == 1e-16)


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    [
        *["SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax"],
        *["Nadam", "Ftrl", "Lion", "Lamb", "Muon"],
    ],
)
def test_slots_of_what_is_pruned_are_those_of_a_new_optimizer(name):
    settings = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    model = mask_model(scramble(mlp()))
    optimizers = [getattr(keras.optimizers, name)(0.1, **settings) for _ in range(2)]
    for optimizer in optimizers:
        optimizer.build(model.trainable_variables)
    used, new = optimizers
    for slot in used.variables:
        if tuple(slot.shape) in ((4, 6), (6, 2)):
            slot.assign(np.full(slot.shape, 7.0))
    nothing = {n: np.zeros(mask.shape) for n, mask in get_masks(model).items()}
    set_masks(model, nothing, used)
    for one, other in zip(used.variables, new.variables, strict=True):
        np.testing.assert_array_equal(read(one), read(other))
