"""Statistics of BatchNormalization are those of the data."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from tests.models_zoo import as_array

rng = np.random.default_rng(0)
X = rng.normal(3, 2, size=(64, 5, 5, 2)).astype("float32")


def network(axis=-1):
    x = keras.Input((5, 5, 2))
    y = layers.Conv2D(3, 3, name="conv")(x)
    y = layers.BatchNormalization(axis=axis, name="first")(y)
    y = layers.Dropout(0.5)(layers.ReLU()(y))
    y = layers.Conv2D(4, 2, name="next")(y)
    y = layers.BatchNormalization(name="second")(y)
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))


def statistics(layer):
    return as_array(layer.moving_mean), as_array(layer.moving_variance)


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_batch_is_normalised_to_zero_mean_and_unit_variance(axis):
    model = network(axis)
    weights = [as_array(v) for v in model.trainable_variables]
    kl.recalibrate(model, X)
    for name in ("first", "second"):
        layer = model.get_layer(name)
        made = as_array(keras.Model(model.input, layer.output)(X))
        others = tuple(a for a in range(4) if a != layer.axis % 4)
        assert np.allclose(made.mean(others), 0, atol=1e-4)
        assert np.allclose(made.var(others), 1, atol=0.1)
    for variable, before in zip(model.trainable_variables, weights, strict=True):
        assert np.array_equal(as_array(variable), before)


def test_the_statistics_are_those_of_all_examples_whatever_the_batches_are():
    model = network()
    kl.recalibrate(model, X[:48], batch_size=32)
    layer = model.get_layer("first")
    made = as_array(model.get_layer("conv")(X[:48])).astype("float64")
    mean, variance = statistics(layer)
    assert np.allclose(mean, made.mean((0, 1, 2)), atol=1e-5)
    assert np.allclose(variance, made.var((0, 1, 2)), rtol=1e-4)


def test_steps_that_are_masked_do_not_count():
    """As in training, here with no memory of what was before."""
    x = np.r_["1", rng.normal(3, 1, (8, 2, 3)), np.zeros((8, 3, 3))].astype("float32")
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Masking(),
            layers.BatchNormalization(momentum=0.0),
        ]
    )
    kl.recalibrate(model, x)
    own = statistics(model.layers[-1])
    model(x, training=True)
    for one, other in zip(own, statistics(model.layers[-1]), strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_pruned_and_frozen_layers_and_pairs():
    keras.utils.set_random_seed(0)
    model = network()
    kl.recalibrate(model, X)
    masked = kl.mask_model(model)
    kl.prune(masked, 0.5)
    masked.get_layer("first").trainable = False
    kl.recalibrate(masked, (X, np.zeros(64)))
    made = as_array(masked.get_layer("conv")(X)).reshape(-1, 3)
    assert np.allclose(
        statistics(masked.get_layer("first"))[0], made.mean(0), atol=1e-4
    )


def test_wrong_data_change_nothing():
    model = network()
    before = statistics(model.get_layer("first"))
    bad = np.zeros((4, 5, 5, 3), "float32")
    for data in (bad, X[:0]):
        with pytest.raises(ValueError, match="`data`"):
            kl.recalibrate(model, data)
    after = statistics(model.get_layer("first"))
    assert all(map(np.array_equal, before, after))
    plain = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="a model with BatchNormalization"):
        kl.recalibrate(plain, np.ones((2, 2)))
