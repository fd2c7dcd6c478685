"""Filters that the next layer's outputs are made of, and what is left made up for."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from tests.models_zoo import as_array

rng = np.random.default_rng(0)


def planted(dense):
    """Outputs that 8 of 32 channels make, with 24 that add next to nothing."""
    useful = np.sort(rng.choice(32, 8, replace=False))
    if dense:
        inputs = keras.Input((10,))
        made = layers.Dense(32, "relu", name="makes")
        reads = layers.Dense(6, name="reads")
        x = rng.normal(size=(400, 10)).astype("float32")
    else:
        inputs = keras.Input((6, 6, 2))
        made = layers.Conv2D(32, 3, activation="relu", name="makes")
        reads = layers.Conv2D(6, 3, name="reads")
        x = rng.normal(size=(100, 6, 6, 2)).astype("float32")
    y = reads(made(inputs))
    model = keras.Model(inputs, y if dense else layers.Flatten()(y))
    # What the first layer's kernels look like says nothing.
    made.kernel.assign(rng.normal(size=made.kernel.shape))
    kernel = rng.normal(size=reads.kernel.shape)
    kernel[..., np.setdiff1d(np.arange(32), useful), :] *= 1e-3
    reads.kernel.assign(kernel)
    return kl.mask_model(model), useful, x


@pytest.mark.parametrize("dense", [True, False])
def test_planted_channels_are_found(dense):
    model, useful, x = planted(dense)
    expected = as_array(model(x))
    how = {"granularity": "filter", "data": x}
    kl.prune(model, 0.75, "lasso", repair="least_squares", **how)
    mask = kl.get_masks(model)["reads/kernel"]
    channels = mask.reshape(-1, 32, 6).any(axis=(0, 2))
    assert np.array_equal(np.flatnonzero(channels), useful)
    small = kl.compact(model)
    assert as_array(small.get_layer("makes").kernel).shape[-1] == 8
    assert np.allclose(as_array(small(x)), as_array(model(x)), atol=1e-4)
    away = np.abs(as_array(model(x)) - expected).max()
    assert away < 0.05 * np.abs(expected).max()


@pytest.mark.once
def test_a_channel_that_others_make_up_for_goes_first():
    """Three channels of which one is the sum of the others, and a repair."""
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, name="makes")
    model = keras.Model(inputs, layers.Dense(2, name="reads")(hidden(inputs)))
    one, two = rng.normal(size=(2, 4))
    hidden.kernel.assign(np.stack([one, two, one + two], axis=1))
    x = rng.normal(size=(100, 4)).astype("float32")
    masked = kl.mask_model(model)
    expected = as_array(masked(x))
    repair = kl.repair.LeastSquares(damping=0)
    kl.prune(masked, 1 / 3, "lasso", granularity="filter", data=x, repair=repair)
    assert np.allclose(as_array(masked(x)), expected, atol=1e-4)
