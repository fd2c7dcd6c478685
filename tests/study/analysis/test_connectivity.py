import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery import mask_model, prune
from keras_lottery.keras_bridge.layers import get_masks, get_state, set_state
from keras_lottery.study.analysis import instability, interpolate
from keras_lottery.study.analysis.connectivity import estimate_statistics
from tests.study.analysis.small_networks import (
    TEST,
    TRAIN,
    assert_same,
    everything,
    mlp,
    normalised,
)


@pytest.fixture(scope="module")
def model():
    model = mask_model(normalised())
    model.fit(*TRAIN, epochs=1, verbose=0)
    prune(model, 0.3)
    return model


def other(model, seed=0):
    """Another state of a model, zero where it is pruned."""
    rng = np.random.default_rng(seed)
    state = {
        name: (array + rng.normal(size=array.shape) ** 2).astype(array.dtype)
        if "float" in array.dtype.name
        else array
        for name, array in get_state(model).items()
    }
    for name, mask in get_masks(model).items():
        state[name][~mask] = 0
    return state


def measure(model, state):
    own = get_state(model)
    set_state(model, state)
    logs = model.evaluate(*TEST, verbose=0, batch_size=1000, return_dict=True)
    set_state(model, own)
    return logs["loss"], logs["accuracy"]


@given(st.integers(0, 100))
@settings(max_examples=5)
def test_the_ends_are_the_two_nets_and_the_model_is_left(model, seed):
    a, b = other(model, seed), other(model, seed + 1)
    before = everything(model)
    line = interpolate(model, a, b, TEST, points=3)
    assert_same(before, everything(model))
    for row, state in ((0, a), (2, b)):
        loss, accuracy = measure(model, state)
        assert line.loc[row, ["loss", "accuracy"]].tolist() == [loss, accuracy]
        assert line.loc[row, "error"] == 1 - accuracy


def test_between_them_all_weights_are_interpolated(model):
    a, b = get_state(model), other(model)
    line = interpolate(model, a, b, TEST, points=5)
    assert line["alpha"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    between = {
        name: (0.75 * a[name] + 0.25 * b[name]).astype(a[name].dtype) for name in a
    }
    assert "norm/moving_mean" in between
    assert line["loss"][1] == pytest.approx(measure(model, between)[0], rel=1e-5)


@given(st.integers(0, 100))
@settings(max_examples=5)
def test_a_net_is_stable_to_itself(model, seed):
    state = other(model, seed)
    assert instability(model, state, state, TEST, points=4) == 0


def test_instability_is_the_barrier_and_symmetric(model):
    a, b = other(model, 1), other(model, 2)
    error = interpolate(model, a, b, TEST, points=7)["error"].to_numpy()
    found = instability(model, a, b, TEST, points=7)
    assert found == error.max() - np.mean([error[0], error[-1]])
    assert 0 <= found <= 1
    back = instability(model, b, a, TEST, points=7)
    assert found == pytest.approx(back, abs=1.5 / len(TEST[0]))


def test_a_barrier_of_known_height():
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(10, name="hidden")(inputs)
    outputs = keras.layers.Dense(3, name="output")(hidden**2)
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(*TRAIN, epochs=5, verbose=0)
    a = {**get_state(model), "output/bias": np.arange(3, dtype="float32")}
    # The same function, of opposite weights: half-way nothing but biases is left.
    b = {name: -array if "hidden" in name else array for name, array in a.items()}
    line = interpolate(model, a, b, TEST, points=3)
    assert line["error"][0] == line["error"][2]
    assert line["error"][1] == pytest.approx(1 - np.mean(TEST[1] == 2))


def test_statistics_are_estimated_between_the_ends(model):
    a, b = other(model, 1), other(model, 2)
    before = everything(model)
    line = interpolate(model, a, b, TEST, points=3, statistics=TRAIN[0])
    assert_same(before, everything(model))
    plain = interpolate(model, a, b, TEST, points=3)
    assert line["loss"].tolist()[::2] == plain["loss"].tolist()[::2]
    assert line["loss"][1] != plain["loss"][1]


def test_statistics_are_means_over_batches(model):
    own = get_state(model)
    x = TRAIN[0]
    estimate_statistics(model, x, batch_size=32)
    kernel, bias = own["hidden/kernel"], own["hidden/bias"]
    batches = (x @ kernel + bias).reshape(3, 32, -1)
    found = get_state(model)
    set_state(model, own)
    expected = batches.mean((0, 1))
    np.testing.assert_allclose(found["norm/moving_mean"], expected, atol=1e-5)
    variance = batches.var(1).mean(0)
    np.testing.assert_allclose(found["norm/moving_variance"], variance, rtol=1e-4)
    assert model.get_layer("norm").momentum == 0.8
    with pytest.raises(ValueError, match="BatchNormalization layers for `statistics`"):
        estimate_statistics(mlp(), x)


def test_what_does_not_fit_is_refused(model):
    a = get_state(model)
    with pytest.raises(ValueError, match="Received: points=1"):
        interpolate(model, a, a, TEST, points=1)
    with pytest.raises(ValueError, match=r"`state_b` to be a state.*hidden/bias"):
        interpolate(model, a, get_state(mlp()) | {"hidden/bias": np.ones(2)}, TEST)
    full = {name: np.ones_like(array) for name, array in a.items()}
    with pytest.raises(ValueError, match=r"`state_a` to be zero where .* is pruned"):
        interpolate(model, full, a, TEST)
    with pytest.raises(ValueError, match="`model` to be a built model"):
        interpolate(keras.Sequential(), a, a, TEST)
