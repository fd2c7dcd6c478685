"""What layers read, in models of every kind."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.calibration import input_norms, second_moments
from keras_lottery.keras_bridge.layer_inputs import calls_in_order
from tests.models_zoo import as_array

rng = np.random.default_rng(0)
X = rng.normal(size=(10, 6)).astype("float32")


def shared():
    """A layer that is used twice, and one in a nested model."""
    x = keras.Input((6,))
    twice = layers.Dense(6, "relu", name="twice")
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="deep")])
    return keras.Model(x, inner(twice(twice(x))))


@keras.saving.register_keras_serializable("calibration")
class Own(keras.Model):
    """A subclassed model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, "relu", name="first")
        self.second = layers.Dense(2, name="second")

    def call(self, x):
        return self.second(inputs=self.first(x))


@pytest.mark.parametrize("size", [3, 10])
def test_moments_are_those_of_all_uses_whatever_the_batches_are(size):
    model = kl.mask_model(shared())
    assert calls_in_order(model, X) == {"twice/kernel": 2, "sequential/deep/kernel": 1}
    once = as_array(model.get_layer("twice")(X))
    both = np.concatenate([X, once]).astype("float64")
    moments = second_moments(model, X, "twice/kernel", size)
    assert np.allclose(moments[0], both.T @ both, rtol=1e-5, atol=1e-5)
    norms = input_norms(model, X, ["twice/kernel", "sequential/deep/kernel"], size)
    expected = np.linalg.norm(both, axis=0)[:, None] * np.ones((1, 6))
    assert np.allclose(norms["twice/kernel"], expected, rtol=1e-5)
    assert norms["sequential/deep/kernel"].shape == (6, 3)


def test_subclassed_models_are_read_too():
    model = Own()
    model(X)
    model = kl.mask_model(model)
    norms = input_norms(model, X, ["first/kernel", "second/kernel"])
    assert np.allclose(norms["first/kernel"][:, 0], np.linalg.norm(X, axis=0))


@keras.saving.register_keras_serializable("calibration")
class Squared(layers.Dense):
    """A layer of a user's own, whose kernel reads something else."""

    def call(self, x):
        return super().call(x * x)


@pytest.mark.once
def test_layers_of_ones_own_are_refused():
    kl.register_masked(Squared)
    model = kl.mask_model(keras.Sequential([keras.Input((6,)), Squared(2)]))
    with pytest.raises(ValueError, match="of a Squared"):
        input_norms(model, X, list(kl.get_masks(model)))


@pytest.mark.once
def test_data_that_do_not_fit_are_refused_by_name():
    two = [keras.Input((2,), name="a"), keras.Input((2,), name="b")]
    model = kl.mask_model(keras.Model(two, layers.Dense(2)(layers.Add()(two))))
    part = X[:, :2]
    kl.prune(model, 0.5, "wanda", data={"a": part, "b": part})
    for data in ([part, part], {"a": part, "b": np.full_like(part, np.nan)}):
        with pytest.raises(ValueError, match="`data`"):
            kl.prune(model, 0.75, "wanda", data=data)


def test_grouped_and_depthwise_convolutions_have_moments_of_each_group():
    x = rng.normal(size=(4, 5, 5, 4)).astype("float32")
    model = kl.mask_model(
        keras.Sequential([keras.Input((5, 5, 4)), layers.DepthwiseConv2D(1)]),
        prunable=lambda layer: True,
    )
    (name,) = kl.get_masks(model)
    assert np.allclose(
        second_moments(model, x, name).ravel(), (x**2).sum((0, 1, 2)), rtol=1e-5
    )


def test_layers_called_in_a_loop_are_refused_by_name():
    model = keras.Sequential([keras.Input((4, 3)), layers.LSTM(2, name="words")])
    model = kl.mask_model(model)
    x = np.ones((2, 4, 3), "float32")
    with pytest.raises(ValueError, match="inputs of the weight `words"):
        input_norms(model, x, list(kl.get_masks(model)))


def test_nothing_is_left_behind():
    model = kl.mask_model(shared())
    before = {id(layer): dict(vars(layer)) for layer in model.layers}
    calls_in_order(model, X)
    assert {id(layer): dict(vars(layer)) for layer in model.layers} == before
    assert np.isfinite(model.predict(X, verbose=0)).all()
