"""A small search: its data, its model, its arguments."""

import functools
import time

import keras
import numpy as np

from keras_lottery.engines import Training
from keras_lottery.engines.data import Data
from keras_lottery.engines.fit import FitEngine
from keras_lottery.keras_bridge.layers import mask_model
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.records import Reader

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
DATA = {
    "x": X[:100],
    "y": Y[:100],
    "validation_data": (X[100:150], Y[100:150]),
    "test_data": (X[150:], Y[150:]),
}
FIT = DATA | {"batch_size": 16, "epochs": 2, "eval_freq": 4, "verbose": 0}


def build(learning_rate=0.01, metrics=("accuracy",), seed=None):
    initializer = keras.initializers.GlorotNormal(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(12, "relu", kernel_initializer=initializer),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2, kernel_initializer=initializer, name="output"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    return model


def functional(crossed=False, units=6, learning_rate=0.01):
    """A graph of layers, wired in one of two ways."""
    x = keras.Input((6,))
    one, two = (keras.layers.Dense(6, n)(x) for n in ("relu", "tanh"))
    for name in ("a", "b"):
        layer = keras.layers.Dense(units, name=name)
        one, two = (layer(two), one) if crossed else (layer(one), two)
    model = keras.Model(
        x, keras.layers.Dense(2)(keras.layers.Concatenate()([one, two]))
    )
    model.compile(
        keras.optimizers.SGD(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make(directory=None, model=build, **arguments):
    defaults = {"schedule": [0.5, 0.75], "controls": {"reinit": 1}, "replicates": 1}
    return LotteryTicketSearch(model, directory=directory, **(defaults | arguments))


@functools.cache
def fit_engine():
    """What trains such a search's tickets, without a rewind point."""
    data = Data((X[:100], Y[:100]), FIT["validation_data"], None, batch_size=16)
    return FitEngine(mask_model(build()), data, 12, 0, 4)


def stored(search, which):
    """The meta, the states and the masks of a training."""
    reader = Reader(search.store)
    elsewhere = reader.training(which)[0]["elsewhere"]
    return reader.training(which, *elsewhere)


def numbers(search):
    return search.results().drop(columns="seconds")


def pretend(self, ticket, seed, *how):
    """A training in no time: what it gives depends on the ticket and the seed alone."""
    rng = np.random.default_rng([seed, ticket.masks.kept])
    final = {
        name: (weights + rng.normal(size=weights.shape)).astype(weights.dtype)
        for name, weights in ticket.weights.items()
    }
    parts = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
    metrics = {
        f"{when}_{p}": rng.random() for when in ("early_stop", "final") for p in parts
    }
    metrics |= {"early_stop_step": 4, "seconds": time.perf_counter()}
    curve = {name: [rng.random()] for name in ("val_loss", "val_accuracy")}
    return Training(final, ticket.weights, {"step": [4], **curve}, metrics)
