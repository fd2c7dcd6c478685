"""A small problem that engines solve in the same way."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from keras_lottery.engines import make
from keras_lottery.engines.data import Data
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.masks import Masks
from keras_lottery.tickets import Ticket

CENTRES = np.random.default_rng(0).normal(size=(3, 4, 4, 2))


def examples(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = CENTRES[y] + 2 * rng.normal(size=(n, 4, 4, 2))
    return x.astype("float32"), y


def data(n=165, batch_size=16, **kwargs):
    parts = {
        "train": examples(n, 1),
        "validation": examples(50, 2),
        "test": examples(30, 3),
    }
    return Data(**(parts | kwargs), batch_size=batch_size)


def mlp():
    return [layers.Flatten(), layers.Dense(12, "relu"), layers.Dense(3)]


def dropout():
    return [
        layers.Flatten(),
        layers.Dense(12, "relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.3, seed=4),
        layers.Dense(3),
    ]


def convolutional():
    return [
        layers.Conv2D(6, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dropout(0.3, seed=4),
        layers.Dense(3, kernel_regularizer="l2"),
    ]


def decay(rate):
    return optimizers.schedules.CosineDecay(rate, 150)


CASES = {
    "adam": (mlp, lambda: optimizers.Adam(1e-3)),
    "momentum": (convolutional, lambda: optimizers.SGD(decay(0.05), momentum=0.9)),
    "dropout": (dropout, lambda: optimizers.SGD(0.01)),
    "ema": (
        mlp,
        lambda: optimizers.AdamW(
            1e-3, weight_decay=0.01, clipnorm=1.0, use_ema=True, ema_momentum=0.9
        ),
    ),
    "muon": (mlp, lambda: optimizers.Muon(1e-3)),
}


def model(case="adam", kind=keras.Sequential, **kwargs):
    """A compiled masked model."""
    keras.utils.set_random_seed(0)
    body, optimizer = CASES[case]
    masked = mask_model(keras.Sequential([keras.Input((4, 4, 2)), *body()]))
    if kind is not keras.Sequential:
        masked = kind(masked.inputs, masked.outputs)
    settings = {
        "optimizer": optimizer(),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }
    masked.compile(**(settings | kwargs))
    return masked


def made(name, case="adam", of=None, **kwargs):
    """An engine of its own."""
    settings = {"steps": 200, "rewind_step": 5, "eval_freq": 10} | kwargs
    engine = make(name, model(case), of or data(), **settings)
    assert engine.name == name
    return engine


# Compiling takes longer than training, and a training leaves nothing behind.
engine_of = functools.cache(made)


@functools.cache
def untouched(case="adam"):
    """A model that is not trained, for tickets."""
    return model(case)


def ticket(of, steps=200, step=0, density=0.4, seed=5, **kwargs):
    """A ticket of random masks, from the model's own weights."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(m.shape) < density for name, m in get_masks(of).items()}
    return Ticket(Masks(masks), get_state(of), step, steps, **kwargs)


def assert_alike(one, other, tolerance=1e-5):
    """Two trainings agree."""
    for states in ("final", "rewind_point"):
        a, b = getattr(one, states), getattr(other, states)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance)
    assert one.curve.keys() == other.curve.keys()
    for name, values in one.curve.items():
        assert values == pytest.approx(other.curve[name], abs=1e-4)
    timeless = [
        {name: value for name, value in each.metrics.items() if name != "seconds"}
        for each in (one, other)
    ]
    assert timeless[0] == pytest.approx(timeless[1], abs=1e-4, nan_ok=True)


def assert_zeros(training, masks):
    """Pruned weights are zero, and the others are not."""
    for name, mask in masks.items():
        assert (training.final[name][~mask] == 0).all()
        assert (training.final[name][mask] != 0).all()
