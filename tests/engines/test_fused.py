"""The fused engine trains as `fit` does, and says what it leaves to it."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from keras_lottery.engines import make
from keras_lottery.engines.data import Data
from keras_lottery.layers import get_masks, get_state, mask_model
from keras_lottery.layers.state import read
from keras_lottery.masks import Masks
from keras_lottery.ticket import Ticket

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 4, 4, 2))


def examples(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = CENTRES[y] + rng.normal(size=(n, 4, 4, 2))
    return x.astype("float32"), y


def data(n=165, batch_size=16, **kwargs):
    return Data(
        examples(n, 1),
        examples(50, 2),
        examples(30, 3),
        batch_size=batch_size,
        **kwargs,
    )


def mlp():
    return [layers.Flatten(), layers.Dense(12, "relu"), layers.Dense(3)]


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
    "adamw": (mlp, lambda: optimizers.AdamW(1e-3, weight_decay=0.01, clipnorm=1.0)),
    "ema": (mlp, lambda: optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9)),
    "muon": (mlp, lambda: optimizers.Muon(1e-3)),
}


def model(case="adam", metrics=("accuracy",), **kwargs):
    keras.utils.set_random_seed(0)
    body, optimizer = CASES[case]
    built = keras.Sequential([keras.Input((4, 4, 2)), *body()])
    masked = mask_model(built)
    masked.compile(
        optimizer(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
        **kwargs,
    )
    return masked


def ticket(of, steps=200, step=0, density=0.4, **kwargs):
    rng = np.random.default_rng(5)
    masks = {name: rng.random(m.shape) < density for name, m in get_masks(of).items()}
    return Ticket(Masks(masks), get_state(of), step, steps, **kwargs)


def assert_alike(one, other, tolerance=1e-5):
    """Two trainings agree."""
    for states in ("final", "rewind_point"):
        a, b = getattr(one, states), getattr(other, states)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance)
    assert one.curve["step"] == other.curve["step"]
    np.testing.assert_allclose(
        one.curve["val_loss"], other.curve["val_loss"], atol=1e-4
    )
    assert one.curve["val_accuracy"] == pytest.approx(other.curve["val_accuracy"])
    timeless = [
        {k: v for k, v in t.metrics.items() if k != "seconds"} for t in (one, other)
    ]
    assert timeless[0] == pytest.approx(timeless[1], abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_fit_does(case):
    trainings = []
    for name in ("fit", "fused"):
        engine = make(name, model(case), data(), 200, rewind_step=13, eval_freq=30)
        trained = ticket(engine.model)
        trainings.append(engine.train(trained, seed=7))
        weights = {v.path: read(v) for v in engine.model.trainable_variables}
        assert engine.name == name
        assert np.isfinite(trainings[-1].curve["val_loss"]).all()
    assert_alike(*trainings)
    final = trainings[1].final
    for name, mask in trained.masks.items():
        assert (final[name][~mask] == 0).all()
        assert (final[name][mask] != 0).all()
    # Also before anyone writes zeros into what was read.
    zeros = sum(int((value == 0).sum()) for value in weights.values())
    assert zeros >= sum(int((~mask).sum()) for mask in trained.masks.values())
