import dataclasses

import numpy as np
import pytest

from keras_lottery.keras_bridge.layers import get_state
from keras_lottery.masks import Masks
from keras_lottery.study.analysis import (
    instability,
    train_and_measure_instability,
    train_rewind_points,
)
from tests.study.analysis.small_networks import (
    TEST,
    TRAIN,
    assert_same,
    everything,
    mlp,
)

pytestmark = pytest.mark.once

HOW = {"test_data": TEST, "engine": "fit", "verbose": 0}


@pytest.fixture(scope="module")
def tickets():
    model = mlp()
    before = everything(model)
    tickets = train_rewind_points(model, *TRAIN, at=[0, 2, "2ep"], epochs=4, **HOW)
    assert_same(before, everything(model))
    return tickets


def test_rewind_points_are_steps_of_one_training(tickets):
    assert [(t.step, t.steps) for t in tickets] == [(0, 12), (2, 10), (6, 6)]
    assert all(t.masks.density == 1 for t in tickets)
    for name, array in get_state(mlp()).items():
        np.testing.assert_array_equal(tickets[0].weights[name], array)
    # The same training, asked for otherwise.
    again = train_rewind_points(mlp(), *TRAIN, at=["2ep", 6], steps=12, **HOW)
    for name, array in tickets[2].weights.items():
        np.testing.assert_array_equal(again[0].weights[name], array)
        np.testing.assert_array_equal(again[1].weights[name], array)
    kernels = [t.weights["hidden/kernel"] for t in tickets]
    moved = [np.abs(kernel - kernels[0]).mean() for kernel in kernels]
    assert moved[0] < moved[1] < moved[2]


def test_instability_of_pairs(tickets):
    mask = np.random.default_rng(0).random((8, 10)) < 0.5
    masks = {**tickets[0].masks, "hidden/kernel": mask}
    sparse = dataclasses.replace(tickets[1], masks=Masks(masks))
    asked = [sparse, tickets[2]]
    table = train_and_measure_instability(asked, *TRAIN, pairs=2, points=3, **HOW)
    assert table["ticket"].tolist() == [0, 0, 1, 1]
    assert table["step"].tolist() == [2, 2, 6, 6]
    assert table["pair"].tolist() == [0, 1] * 2
    assert table["density"].tolist()[::2] == [sparse.masks.density, 1]
    barrier = table["highest_error"] - (table["error_a"] + table["error_b"]) / 2
    np.testing.assert_allclose(table["instability"], barrier)
    assert table["instability"].between(0, 1).all()


def test_copies_differ_in_the_order_of_the_data(tickets, monkeypatch):
    seen = []

    def spy(model, state_a, state_b, *args):
        seen.append((state_a, state_b))
        return interpolate(model, state_a, state_b, *args)

    from keras_lottery.study.analysis import noise

    interpolate = noise.interpolate
    monkeypatch.setattr(noise, "interpolate", spy)
    table = train_and_measure_instability(tickets[0], *TRAIN, points=3, **HOW)
    again = train_and_measure_instability(tickets[0], *TRAIN, points=3, **HOW)
    assert again.equals(table)
    a, b = seen[0]
    assert not np.array_equal(a["hidden/kernel"], b["hidden/kernel"])
    model = tickets[0].initial_model()
    found = instability(model, a, b, TEST, points=3)
    assert table["instability"].tolist() == [found]


def test_what_does_not_fit_is_refused(tickets):
    with pytest.raises(ValueError, match=r"Received: pairs=0"):
        train_and_measure_instability(tickets, *TRAIN, pairs=0, **HOW)
    with pytest.raises(ValueError, match="`tickets` to be a Ticket"):
        train_and_measure_instability([], *TRAIN, **HOW)
    with pytest.raises(ValueError, match="Expected `test_data`"):
        train_and_measure_instability(tickets, *TRAIN, test_data=None)
    with pytest.raises(ValueError, match="rewind_to=12"):
        train_rewind_points(mlp(), *TRAIN, at=[12], epochs=4, **HOW)
    with pytest.raises(ValueError, match="either `epochs` or `steps`"):
        train_rewind_points(mlp(), *TRAIN, at=[0], **HOW)


@pytest.mark.tensorflow
def test_data_sets_of_their_own_order_are_refused(tickets):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(32)
    with pytest.raises(ValueError, match="order of its own"):
        train_and_measure_instability(tickets, data, None, **HOW)
