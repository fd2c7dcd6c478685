"""Small networks and data that the analyses look at."""

import keras
import numpy as np
from keras import layers

from keras_lottery.keras_bridge.layers import named_masks, named_variables
from keras_lottery.keras_bridge.layers.state import read

CENTRES = np.random.default_rng(0).normal(size=(3, 8))


def examples(n, seed):
    """Three overlapping clouds of points."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = CENTRES[y] + 1.5 * rng.normal(size=(n, 8))
    return x.astype("float32"), y


TRAIN, VALIDATION, TEST = (examples(n, seed) for seed, n in enumerate((96, 60, 90)))


def compiled(*body):
    """A compiled classifier of `body`, behind an input of 8 numbers."""
    model = keras.Sequential([keras.Input((8,)), *body])
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def mlp():
    # Layers draw the seeds of their initialisers when they are made.
    keras.utils.set_random_seed(0)
    return compiled(
        layers.Dense(10, "relu", name="hidden"), layers.Dense(3, name="output")
    )


def normalised():
    keras.utils.set_random_seed(0)
    return compiled(
        layers.Dense(10, name="hidden"),
        layers.BatchNormalization(momentum=0.8, name="norm"),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Dense(3, name="output"),
    )


def everything(model):
    """Copies of all that a model and its optimizer hold, masks and metrics included."""
    variables = [
        *named_variables(model).values(),
        *(mask for mask, _ in named_masks(model).values()),
        *model.metrics_variables,
        *model.optimizer.variables,
    ]
    return [read(variable) for variable in variables]


def assert_same(one, other):
    """Two results of `everything` are equal to the bit."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.tobytes() == b.tobytes()
