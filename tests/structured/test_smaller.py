"""The smaller network of a ticket of filters, before any training."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.structured import multiply_adds
from keras_lottery.structured.smaller import Smaller
from tests.models_zoo import inputs, outputs
from tests.structured.architectures import draw_weights, random_model


def part_of(model, masks):
    """The smaller network of masks, with the model's weights."""
    smaller = Smaller(model)
    part = smaller.part(kept := smaller.kept(masks))
    with warnings.catch_warnings(action="ignore"):
        multiplied = multiply_adds(part.model)
    assert smaller.cost(kept) == (kl.strip_masks(part.model).count_params(), multiplied)
    kl.set_state(part.model, part.cut(get_state(model)), part.cut(masks))
    return part


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 2**16))
def test_it_does_what_the_whole_network_does_with_masks(seed):
    model = mask_model(random_model(seed))
    draw_weights(model, np.random.default_rng(seed))
    try:
        kl.prune(model, 0.5, "random", seed=seed, granularity="filter")
    except ValueError as error:
        assert "filter" in str(error)
        return
    state, masks = get_state(model), get_masks(model)
    part = part_of(model, masks)
    assert part.model.count_params() < model.count_params()
    x = inputs(model)
    np.testing.assert_allclose(outputs(part.model, x), outputs(model, x), atol=1e-4)
    back = part.put_back(part.cut(state), {n: 0 * a for n, a in state.items()})
    for name, mask in masks.items():
        np.testing.assert_array_equal(back[name], np.where(mask, state[name], 0))
    assert part.put_back(part.cut(state), state).keys() == state.keys()


def net():
    x = inputs = keras.Input((4,))
    x = layers.Dense(5, "relu", name="one")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(4, "relu", use_bias=False, name="two")(x)
    return mask_model(keras.Model(inputs, layers.Dense(2, name="out")(x)))


def test_a_unit_goes_only_if_masks_take_both_of_its_sides():
    model = net()
    masks = {name: mask.copy() for name, mask in get_masks(model).items()}
    masks["one/kernel"][:, :2] = False  # still read: its bias is trained
    masks["two/kernel"][2] = False  # still made
    masks["one/kernel"][:, 3] = masks["two/kernel"][3] = False
    part = part_of(model, kl.Masks(masks))
    found = {layer.name: layer.output.shape[-1] for layer in part.model.layers}
    assert (found["one"], found["norm"], found["two"]) == (4, 4, 4)
    np.testing.assert_array_equal(part.places["one/bias"], [0, 1, 2, 4])
    assert part.places["two/kernel"].shape == (4, 4)
    assert "out/kernel" not in part.places


@pytest.mark.once
def test_weights_that_are_zero_stay():
    """A scale that starts at zero grows: `compact` would take its channel."""
    model = net()
    gamma = model.get_layer("norm").gamma
    gamma.assign(np.zeros(5))
    model.get_layer("one").bias.assign(np.zeros(5))
    masks = {name: mask.copy() for name, mask in get_masks(model).items()}
    masks["one/kernel"][:, 0] = masks["two/kernel"][0] = False
    part = part_of(model, kl.Masks(masks))
    assert part.model.get_layer("norm").output.shape == (None, 4)


@pytest.mark.once
def test_a_layer_keeps_one_unit():
    model = net()
    masks = {name: np.zeros_like(mask) for name, mask in get_masks(model).items()}
    part = part_of(model, kl.Masks(masks))
    assert part.model.get_layer("one").output.shape == (None, 1)
