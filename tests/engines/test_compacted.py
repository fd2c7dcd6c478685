"""Tickets of filters, trained as the smaller networks that they are."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers, optimizers, regularizers

import keras_lottery as kl
from keras_lottery.engines import compacted, make
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.tickets import Ticket
from tests.engines.small_training import data

STEPS = 30


def sgd():
    rate = optimizers.schedules.CosineDecay(0.05, STEPS)
    return optimizers.SGD(rate, momentum=0.9, weight_decay=1e-3, global_clipnorm=1.0)


def network(optimizer, rate=0.0, penalty=None):
    """A frozen layer, a shortcut, normalisation, pooling and a dense layer."""
    keras.utils.set_random_seed(0)
    how = {"padding": "same", "kernel_regularizer": regularizers.L2(1e-3)}
    inputs = x = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 1, trainable=False, name="still")(x)
    x = y = layers.Conv2D(8, 3, name="stem", **how)(x)
    y = layers.BatchNormalization(momentum=0.9, gamma_regularizer=penalty)(y)
    y = layers.Conv2D(8, 3, use_bias=False, name="up", **how)(layers.ReLU()(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Dropout(rate)(layers.Flatten()(x))
    x = layers.Dense(10, "relu", name="dense")(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    with warnings.catch_warnings(action="ignore"):  # of the frozen layer
        return mask_model(model)


@functools.cache
def ticket():
    """Half of the filters and units."""
    model = network(sgd())
    kl.prune(model, 0.5, "l1", granularity="filter")
    return Ticket(get_masks(model), get_state(model), 0, STEPS)


def trained(name, compact):
    how = {"steps": STEPS, "eval_freq": 10, "rewind_step": 20}
    engine = make(name, network(sgd()), data(), compact=compact, **how)
    asked = []
    stop = lambda state: asked.append(state)  # noqa: E731
    return engine, engine.train(ticket(), 1, stop=stop, keep_at=[10]), asked


@functools.cache
def with_masks():
    # By the engine that compiles faster.
    jax = keras.backend.backend() == "jax"
    return trained("fused" if jax else "fit", False)


@pytest.mark.parametrize(
    "name", ["fit", pytest.param("fused", marks=pytest.mark.fused)]
)
def test_it_trains_as_with_masks(name):
    whole, expected, _ = with_masks()
    small, found, asked = trained(name, True)
    smaller = small.compacted.smaller
    places = smaller.part(smaller.kept(ticket().masks)).places
    ((_, inner),) = small.compacted._engines
    assert inner.model.count_params() < 0.4 * whole.model.count_params()
    if name == "fused":
        # The data are on the device once.
        assert inner._loop.parts is small.arrays[0]
    for one, other in (
        (found.final, expected.final),
        (found.rewind_point, expected.rewind_point),
        (found.passed[10], expected.passed[10]),
        (asked[-1], expected.final),
    ):
        assert one.keys() == other.keys()
        for name, array in one.items():
            gone = np.ones(array.size, bool)
            gone[places.get(name, np.arange(array.size))] = False
            here = array.ravel()[~gone], other[name].ravel()[~gone]
            np.testing.assert_allclose(*here, atol=1e-4, err_msg=name)
            # Biases and scales of filters that are gone are as they were.
            start = ticket().weights[name].ravel()
            np.testing.assert_array_equal(array.ravel()[gone], start[gone])
        for name, mask in ticket().masks.items():
            assert not one[name][~mask].any()
    for column in expected.curve:
        np.testing.assert_allclose(
            found.curve[column], expected.curve[column], atol=1e-4
        )
    assert found.metrics.keys() == expected.metrics.keys()


def make_compacted(model, **how):
    return compacted.Compacted(model, lambda model: None, 16, **how)


@pytest.mark.once
def test_it_says_what_would_change():
    cases = {
        "Lamb looks at whole weights": network(optimizers.Lamb()),
        "'dropout' draws a random number for each channel": network(sgd(), rate=0.5),
        "the regulariser of 'batch_normalization/gamma'": network(sgd(), penalty="l2"),
    }
    for message, model in cases.items():
        with pytest.raises(ValueError, match=message):
            make_compacted(model)
        make_compacted(model, always=True)
    with pytest.raises(ValueError, match="EarlyStopping would see the smaller"):
        make_compacted(network(sgd()), callbacks=[keras.callbacks.EarlyStopping()])


@pytest.mark.once
def test_a_subclassed_model_is_refused_even_if_it_is_asked_for():
    class Mine(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Mine of your own"):
        make_compacted(Mine(), always=True)


@pytest.mark.once
def test_short_trainings_are_not_worth_another_network():
    none = compacted.compacted(
        network(sgd()), lambda model: None, 16, STEPS, (), "auto"
    )
    assert none is None
    one = make_compacted(network(sgd()))
    assert one.train(ticket(), 0, print, None, ()) is None


@pytest.mark.once
def test_a_warning_says_why_tickets_stay_whole():
    model = network(optimizers.Lamb())
    with pytest.warns(UserWarning, match="in the whole network, with masks: Lamb"):
        compacted.compacted(model, lambda model: None, 16, 10**9, (), "auto")
