"""Gradients against finite differences."""

import keras
import numpy as np
import pytest
from keras import layers
from models_zoo import (
    arrays,
    assert_equal,
    branches,
    compiled,
    inputs,
    mlp,
    outputs,
    pruned,
    scramble,
    separable,
)

from keras_lottery.gradients import gradients
from keras_lottery.layers import (
    get_masks,
    get_state,
    mask_model,
    set_state,
    strip_masks,
)


def linear():
    """Its outputs are linear in any one weight, and its loss quadratic."""
    return keras.Sequential(
        [
            keras.Input((4, 2)),
            layers.Conv1D(3, 2, kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def test_finite_differences_of_live_and_of_pruned_weights():
    model = pruned(compiled(scramble(linear())))
    x, y = inputs(model), np.random.default_rng(1).normal(size=(4, 2)).astype("float32")
    plain, state = strip_masks(model), get_state(model)

    def loss(name, position, change):
        moved = {n: array.copy() for n, array in state.items()}
        moved[name][position] += change
        set_state(plain, moved)
        penalty = 0.1 * (moved["conv1d/kernel"].astype("float64") ** 2).sum()
        return ((outputs(plain, x).astype("float64") - y) ** 2).mean() + penalty

    values = gradients(model, x, y)
    assert list(values) == [n for n in state if "moving" not in n and "seed" not in n]
    masks = get_masks(model)
    assert not all(mask.all() for mask in masks.values())
    for name, gradient in values.items():
        # Differences of a quadratic are exact, however large the change.
        differences = [
            (loss(name, position, 0.5) - loss(name, position, -0.5))
            for position in np.ndindex(gradient.shape)
        ]
        np.testing.assert_allclose(
            gradient.ravel(), differences, rtol=2e-4, atol=2e-4 * np.abs(gradient).max()
        )
        if name in masks:
            assert gradient[~masks[name]].all()


@pytest.mark.parametrize("build", [mlp, separable, branches])
def test_names_and_shapes_of_all_trained_weights(build):
    model = pruned(compiled(scramble(build())))
    x = inputs(model)
    before = arrays(model)
    y = [np.ones((4, *out.shape[1:]), "float32") for out in model.outputs]
    values = gradients(model, x, y if len(y) > 1 else y[0])
    state = get_state(model)
    assert values.keys() >= get_masks(model).keys()
    assert len(values) == len(model.trainable_variables)
    for name, gradient in values.items():
        assert (gradient.shape, gradient.dtype) == (state[name].shape, "float32")
        assert gradient.any()
    assert_equal(arrays(model), before)


def test_a_weight_without_use_has_gradient_zero():
    x = keras.Input((4,))
    used, unused = layers.Dense(1, name="used")(x), layers.Dense(1, name="unused")(x)
    model = keras.Model(x, [used, unused])
    model.compile(loss=["mse", None])
    y = np.ones((4, 1), "float32")
    values = gradients(mask_model(model), inputs(model), [y, y])
    assert values["used/kernel"].all()
    assert not values["unused/kernel"].any()


def test_frozen_weights_have_none():
    model = mask_model(compiled(mlp()))
    model.layers[0].trainable = False
    values = gradients(model, inputs(model), np.ones((4, 2), "float32"))
    assert sorted(values) == ["dense_1/bias", "dense_1/kernel"]


def test_a_model_without_loss_is_refused():
    with pytest.raises(ValueError, match=r"`model.compile\(loss=...\)`"):
        gradients(mask_model(mlp()), None, None)
