"""What a snapshot tells of its model, which others use too."""

import dataclasses
import pickle

import numpy as np
import pytest

from keras_lottery.keras_bridge.layers import get_masks, get_state, set_state
from keras_lottery.masks import Masks
from keras_lottery.testing import example


@pytest.fixture
def pair():
    """Two snapshots of one model."""
    one = example.snapshot()
    masks = Masks({name: ~mask for name, mask in one.masks.items()})
    moved = {
        n: np.where(masks[n], a + 1, 0).astype(a.dtype) if n in masks else a
        for n, a in one.final.items()
    }
    return one, dataclasses.replace(one, masks=masks, final=moved)


def test_the_model_holds_the_snapshot_whenever_it_is_asked_for(pair):
    for snapshot in (*pair, pair[0]):
        state = get_state(snapshot.model)
        assert get_masks(snapshot.model) == snapshot.masks
        for name, array in snapshot.final.items():
            np.testing.assert_array_equal(state[name], array)


def test_gradients_are_those_of_the_snapshot(pair):
    expected = [snapshot.gradients() for snapshot in pair]
    for snapshot, gradients in zip(pair, expected, strict=True):
        for name, array in snapshot.gradients().items():
            np.testing.assert_array_equal(array, gradients[name])
    name = "dense/kernel"
    assert not np.array_equal(expected[0][name], expected[1][name])
    set_state(pair[0].shared_model, pair[0].initial)
    at_initial = pair[0].gradients(pair[0].initial)[name]
    assert not np.array_equal(expected[0][name], at_initial)


def test_a_snapshot_without_a_model_has_none(pair):
    assert dataclasses.replace(pair[0], shared_model=None).model is None


def test_inputs_are_read_once_by_all_that_are_made_of_a_snapshot(pair):
    rng = np.random.default_rng(0)
    drawn = []

    def data():
        drawn.append(rng.normal(size=(5, 6, 6, 1)).astype("float32"))
        return drawn[-1], np.zeros(5)

    first = dataclasses.replace(pair[0], data=data)
    pruned = dataclasses.replace(first, masks=pair[1].masks)
    for snapshot in (first.leaving_out(["conv"]), pruned, first):
        assert snapshot.inputs() is drawn[0]
    assert len(drawn) == 1
    other = dataclasses.replace(first, data=(x := drawn[0] + 1, np.zeros(5)))
    np.testing.assert_array_equal(other.inputs(), x)
    assert first.inputs() is drawn[0]
    unread = dataclasses.replace(pair[0], data=lambda: data())
    other = dataclasses.replace(unread, data=(x, np.zeros(5)))
    np.testing.assert_array_equal(other.inputs(), x)
    assert unread.inputs() is unread.inputs() is drawn[1]
    np.testing.assert_array_equal(other.inputs(), x)
    assert len(drawn) == 2
    alone = dataclasses.replace(first, shared_model=None, data=None)
    size = len(pickle.dumps(alone))
    assert size == len(
        pickle.dumps(dataclasses.replace(pair[0], shared_model=None, data=None))
    )
    with pytest.raises(ValueError, match="Calibration needs inputs"):
        alone.inputs()
