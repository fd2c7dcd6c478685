"""New initial weights."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.layers import get_state, mask_model, redraw, set_state
from tests.models_zoo import (
    arrays,
    assert_equal,
    branches,
    cnn,
    mlp,
    nested_used_twice,
    pruned,
    scramble,
    separable,
)


@pytest.mark.parametrize("build", [cnn, separable, nested_used_twice, branches])
def test_a_state_of_the_same_model_with_other_weights(build):
    model = pruned(scramble(build()))
    before = arrays(model)
    state, again, other = (redraw(model, seed) for seed in (1, 1, 2))
    assert_equal(arrays(model), before)
    assert state.keys() == get_state(model).keys()
    assert_equal(state.values(), again.values())
    for name, array in state.items():
        if "kernel" in name or "embeddings" in name:
            assert array.all(), "pruned weights are drawn as well"
            assert not np.isclose(array, other[name]).any()
            assert not np.isclose(array, get_state(model)[name]).any()
        elif name.endswith(("bias", "beta", "moving_mean")):
            assert not array.any()
        elif name.endswith(("gamma", "moving_variance")):
            assert (array == 1).all()
    set_state(model, state)


def test_as_in_fit_seeds_are_set_aside():
    def seeded():
        return mlp(kernel_initializer=keras.initializers.HeNormal(seed=3))

    model = keras.Sequential([keras.Input((4,)), seeded(), layers.Dropout(0.5, seed=4)])
    own, same = get_state(model), get_state(seeded())
    np.testing.assert_array_equal(own["sequential/dense/kernel"], same["dense/kernel"])
    one, other = redraw(model, 0), redraw(model, 1)
    for name in own:
        if not name.endswith("bias"):
            assert not np.array_equal(one[name], own[name])
            assert not np.array_equal(one[name], other[name])


def test_initialisers_are_the_models_own():
    constant = keras.initializers.Constant(3.0)
    state = redraw(mask_model(mlp(bias_initializer=constant)), seed=0)
    assert (state["dense/bias"] == 3).all()
    wide = keras.initializers.RandomUniform(9, 10)
    state = redraw(mlp(kernel_initializer=wide), seed=0)
    assert (state["dense/kernel"] >= 9).all()


def test_models_that_cannot_be_copied_say_why():
    with pytest.raises(ValueError, match="a built model"):
        redraw(keras.Sequential([layers.Dense(2)]), seed=0)
