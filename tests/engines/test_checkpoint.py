"""A training that ends anywhere and goes on is the unbroken one, to the bit."""

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import layers

from keras_lottery.engines import make
from keras_lottery.engines.checkpoint import Checkpoint
from keras_lottery.keras_bridge.layers import mask_model
from tests.engines.small_training import data, decay, ticket

NAMES = ["fit", pytest.param("fused", marks=pytest.mark.fused)]
STEPS, EVERY = 60, 25


class Ended(Exception):
    """What a job's limit does."""


def random_model():
    """All that is random in a training, a schedule, and moving averages."""
    keras.utils.set_random_seed(0)
    body = [
        layers.RandomFlip(seed=3),
        layers.Conv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dropout(0.3, seed=4),
        layers.Dense(3),
    ]
    masked = mask_model(keras.Sequential([keras.Input((4, 4, 2)), *body]))
    optimizer = keras.optimizers.AdamW(
        decay(0.01), weight_decay=0.01, use_ema=True, ema_momentum=0.9
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked.compile(optimizer, loss, metrics=["accuracy"])
    return masked


def ending(step):
    """Ends the training once so many steps are done."""

    def progress(reached):
        if reached.step >= step:
            raise Ended

    return progress


def assert_same(one, other):
    for name in ("final", "rewind_point"):
        states = getattr(one, name), getattr(other, name)
        assert states[0].keys() == states[1].keys() and states[0]
        for key, value in states[0].items():
            np.testing.assert_array_equal(value, states[1][key])
    assert one.curve == other.curve
    assert one.passed.keys() == other.passed.keys() == {20}
    for key, value in one.passed[20].items():
        np.testing.assert_array_equal(value, other.passed[20][key])
    names = one.metrics.keys() - {"seconds"}
    assert {n: one.metrics[n] for n in names} == {n: other.metrics[n] for n in names}


@pytest.fixture(scope="module", params=NAMES)
def whole(request):
    """An engine, a ticket, and its unbroken training."""
    of = random_model()
    engine = make(request.param, of, data(), steps=STEPS, eval_freq=10, rewind_step=30)
    start = ticket(of, STEPS)
    return engine, start, engine.train(start, 7, keep_at=[20])


@settings(max_examples=10)
@given(point=st.integers(1, STEPS - 1), every=st.sampled_from([7, EVERY]))
@example(point=9, every=EVERY)  # Before the first state is stored.
def test_a_training_goes_on_where_it_ended(whole, tmp_path_factory, point, every):
    engine, start, unbroken = whole
    folder = tmp_path_factory.mktemp("state")
    checkpoint = Checkpoint(folder / "state", every)
    with pytest.raises(Ended):
        engine.train(start, 7, ending(point), None, [20], checkpoint)
    stored = point > every
    assert checkpoint.path.exists() == stored
    seen = []
    again = engine.train(start, 7, seen.append, None, [20], checkpoint)
    assert_same(unbroken, again)
    assert (seen[0].step > every) == stored
    checkpoint.remove()
    assert not checkpoint.path.exists()


def test_a_state_of_another_training_is_left_alone(whole, tmp_path):
    engine, start, _ = whole
    checkpoint = Checkpoint(tmp_path / "state", EVERY)
    engine.train(start, 7, checkpoint=checkpoint)
    other, seen = ticket(random_model(), STEPS, seed=6), []
    engine.train(other, 7, seen.append, checkpoint=checkpoint)
    assert seen[0].step < EVERY
    content = bytearray(checkpoint.path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    checkpoint.path.write_bytes(content)
    with pytest.warns(UserWarning, match="starts again from the beginning"):
        engine.train(other, 7, checkpoint=checkpoint)
