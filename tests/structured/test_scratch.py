"""A pruned model trained from scratch: which weights it starts from, and how long."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.structured import compact, multiply_adds, scratch


@pytest.fixture(scope="module")
def pruned():
    """A masked model, half of its filters and units pruned, and its first state."""
    keras.utils.set_random_seed(0)
    model = mask_model(
        keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dense(8, "relu", name="hidden"),
                layers.Dense(2, name="output"),
            ]
        )
    )
    model.compile("adam", "mse")
    initial = get_state(model)
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 1)).astype("float32")
    model.fit(x, np.ones((32, 2)), epochs=2, verbose=0)
    kl.prune(model, 0.5, "l1", granularity="filter")
    return model, initial


def test_the_original_weights_are_those_of_the_units_left(pruned):
    model, initial = pruned
    masks, before = get_masks(model), get_state(model)
    starts = scratch(model, initial, 5)
    state = get_state(starts["original"].model)
    conv = masks["conv/kernel"].any(axis=(0, 1, 2))
    hidden = masks["hidden/kernel"].any(axis=0)
    assert (conv.sum(), hidden.sum()) == (2, 4)
    np.testing.assert_array_equal(
        state["conv/kernel"], initial["conv/kernel"][..., conv]
    )
    np.testing.assert_array_equal(
        state["hidden/kernel"], initial["hidden/kernel"][conv][:, hidden]
    )
    np.testing.assert_array_equal(state["norm/gamma"], np.ones(2))
    for name, array in get_state(model).items():
        np.testing.assert_array_equal(array, before[name])
    assert get_masks(model) == masks


def test_new_weights_are_those_of_the_smaller_model(pruned):
    model, initial = pruned
    starts = scratch(model, initial, 5, seed=3)
    shapes = [weight.shape for weight in compact(model).weights]
    for start in starts.values():
        assert [weight.shape for weight in start.model.weights] == shapes
        assert start.model.compiled
    drawn = get_state(starts["scratch_e"].model)["hidden/kernel"]
    # Glorot's limit for 2 inputs and 4 units, not for 4 and 8.
    assert 0 < np.abs(drawn).max() <= np.sqrt(6 / 6)
    again = get_state(starts["scratch_b"].model)["hidden/kernel"]
    np.testing.assert_array_equal(drawn, again)
    assert starts["scratch_b"].model is not starts["scratch_e"].model
    other = get_state(scratch(model, initial, 5, seed=4)["scratch_e"].model)
    assert not np.array_equal(drawn, other["hidden/kernel"])


@pytest.mark.once
def test_scratch_b_costs_what_the_dense_training_did(pruned):
    model, initial = pruned
    # 16 places of 9 weights for 4 filters, 4 x 8 and 8 x 2; and half of the units.
    assert multiply_adds(model) == 16 * 9 * 4 + 32 + 16
    assert multiply_adds(compact(model)) == 16 * 9 * 2 + 8 + 8
    epochs = {name: s.epochs for name, s in scratch(model, initial, 5).items()}
    assert epochs == {"original": 5, "scratch_e": 5, "scratch_b": round(5 * 624 / 304)}


@pytest.mark.once
def test_multiplications_of_other_convolutions():
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2DTranspose(3, 2, strides=2)(x)
    model = keras.Model(inputs, x)
    assert multiply_adds(model) == 16 * 9 * 2 * 4 + 16 * 9 * 4 + 16 * 4 * 4 * 3
    loose = keras.Sequential([keras.Input((None, 2)), layers.Conv1D(3, 3)])
    with pytest.raises(ValueError, match="fixed sizes"):
        multiply_adds(loose)


@pytest.mark.once
def test_multiplications_of_groups_equations_and_channels_first():
    x = inputs = keras.Input((4, 8, 8))
    x = layers.Conv2D(6, 3, groups=2, data_format="channels_first")(x)
    x = layers.Reshape((6, 36))(x)
    # A sum over the last axis, for each of six rows.
    x = layers.EinsumDense("abc,cd->adb", (5, 6))(x)
    x = layers.EinsumDense("...x,xy->...y", 3)(x)
    x = layers.PReLU()(layers.LayerNormalization(axis=[1, 2])(x))
    model = keras.Model(inputs, x)
    assert multiply_adds(model) == 36 * 9 * 2 * 6 + 6 * 36 * 5 + 5 * 6 * 3


@pytest.mark.once
def test_layers_whose_multiplications_are_not_known_are_named():
    x = inputs = keras.Input((4,), dtype="int32")
    x = layers.LSTM(3, name="memory")(layers.Embedding(5, 2)(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.warns(UserWarning, match=r"Left out: {'memory': 'LSTM'}"):
        assert multiply_adds(model) == 6


@pytest.mark.once
def test_what_cannot_be_is_refused(pruned):
    model, initial = pruned
    with pytest.raises(ValueError, match="epochs=0"):
        scratch(model, initial, 0)
    with pytest.raises(ValueError, match=r"Missing: .*hidden/kernel"):
        scratch(model, {}, 5)
    with pytest.raises(ValueError, match="mask"):
        scratch(compact(model), initial, 5)
