"""The group lasso: its proximal step, and what is zero in the end."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import keras_lottery as kl
from keras_lottery.in_fit.callbacks import GroupLasso
from keras_lottery.in_fit.callbacks.group_lasso import proximal
from tests.models_zoo import as_array, cases

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 6, 2)).astype("float32")
Y = RNG.integers(0, 3, 8)
# The axes of (height, width, inputs, filters) that a group goes along.
AXES = {
    "filter": (0, 1, 2),
    "channel": (0, 1, 3),
    "shape": (3,),
    "layer": (0, 1, 2, 3),
}


def network(optimizer=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    y = layers.Conv2D(5, 3, name="conv_1")(inputs)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    y = layers.Conv2D(4, 3, activation="relu", name="conv_2")(y)
    y = layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D()(y))
    model = kl.mask_model(keras.Model(inputs, y))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, jit_compile=False)
    return model


def fit(model, *callbacks, epochs=1, batch=8):
    model.fit(X, Y, batch, epochs, shuffle=False, verbose=0, callbacks=[*callbacks])
    return kl.get_state(model)


def closed_form(weight, axes, amount):
    norm = np.sqrt(np.square(weight).sum(axis=axes, keepdims=True))
    return weight * np.maximum(0, 1 - amount / np.maximum(norm, 1e-30))


@given(st.sampled_from(sorted(AXES)), st.floats(0, 3), st.integers(0, 99))
def test_the_proximal_step_is_its_closed_form(groups, amount, seed):
    weight = np.random.default_rng(seed).normal(size=(3, 2, 2, 4)).astype("float32")
    found = as_array(proximal(weight, AXES[groups], amount))
    expected = closed_form(weight, AXES[groups], amount)
    assert np.allclose(found, expected, atol=1e-5)
    assert ((found == 0) >= (expected == 0)).all()


@functools.cache
def trained_without():
    return fit(network())


@pytest.mark.parametrize("groups", cases(AXES, ["filter", "shape"]))
def test_a_step_is_the_optimizers_and_the_proximal_one(groups):
    plain = trained_without()
    shrunk = fit(network(), GroupLasso({"conv*": 2.0}, groups))
    for name in ("conv_1/kernel", "conv_2/kernel"):
        expected = closed_form(plain[name], AXES[groups], 0.2)
        assert np.allclose(shrunk[name], expected, atol=1e-6), name
    assert np.allclose(shrunk["dense/kernel"], plain["dense/kernel"])
    gamma = plain["norm/gamma"]
    expected = closed_form(gamma, (), 0.2) if groups == "filter" else gamma
    assert np.allclose(shrunk["norm/gamma"], expected, atol=1e-6)


@pytest.mark.once
def test_no_strength_changes_nothing_and_growth_adds_up():
    optimizer = keras.optimizers.Adam(0.01)
    plain = fit(network(optimizer), epochs=2, batch=4)
    optimizer = keras.optimizers.Adam(0.01)
    none = fit(network(optimizer), GroupLasso(0.0, growth=1.0), epochs=2, batch=4)
    for name, array in plain.items():
        assert np.array_equal(array, none[name]), name


def test_the_strength_grows_by_steps():
    """Without gradients, each step takes as much of a norm as the strength is."""
    model = network(keras.optimizers.SGD(0.1))
    model.get_layer("dense").weight_variable("kernel").assign(np.zeros((4, 3)))
    model.get_layer("dense").trainable = False
    before = kl.get_state(model)["conv_2/kernel"]
    callback = GroupLasso({"conv_2": 0.1}, "layer", growth=0.5, frequency=2)
    after = fit(model, callback, epochs=5)["conv_2/kernel"]
    shrunk = 0.1 * 0.1 * (1 + 1 + 1.5 + 1.5 + 2)
    expected = np.linalg.norm(before) - shrunk
    assert np.linalg.norm(after) == pytest.approx(expected, rel=1e-4)


@pytest.mark.once
def test_filters_that_are_zero_are_masked_and_removed():
    model = network(keras.optimizers.SGD(0.1, momentum=0.9))
    small = np.array([1, 0.1, 1, 0.05])
    kernel = model.get_layer("conv_2").weight_variable("kernel")
    kernel.assign(kernel * small)
    state = fit(model, GroupLasso({"conv_2": 0.5}), epochs=6)
    alive = np.any(state["conv_2/kernel"] != 0, axis=(0, 1, 2))
    assert np.array_equal(alive, small == 1)
    mask = kl.get_masks(model)["conv_2/kernel"]
    assert np.array_equal(mask, np.broadcast_to(alive, mask.shape))
    compacted = kl.compact(model)
    assert compacted.get_layer("conv_2").filters == alive.sum()
    assert np.allclose(as_array(compacted(X)), as_array(model(X)), atol=1e-5)
    fit(model, epochs=1)
    kernel = as_array(model.get_layer("conv_2").kernel)
    assert not kernel[~mask].any()


@pytest.mark.once
def test_a_layer_without_weights_warns_and_arguments_are_checked():
    with pytest.warns(UserWarning, match="has left no weights in"):
        fit(network(), GroupLasso({"conv_2": 99.0}, "layer"))
    for wrong in (-1, {}, {"conv*": -1.0}, "strong", None):
        with pytest.raises(ValueError, match="strength"):
            GroupLasso(wrong)
    with pytest.raises(ValueError, match="`groups`"):
        GroupLasso(0.1, "filters")
    with pytest.raises(ValueError, match="matches none"):
        fit(network(), GroupLasso({"other*": 0.1}))
