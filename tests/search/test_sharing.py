"""What is sent to workers: large arrays once, and the same on the other side."""

import gc

import keras
import numpy as np
import pytest

from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.masks import Masks
from keras_lottery.search.levels import ControlTicket
from keras_lottery.search.store import TrainingId
from keras_lottery.search.tasks import StoredTask
from keras_lottery.search.workers import sharing
from keras_lottery.search.workers.sharing import LARGE, Sharing, loads
from keras_lottery.tickets import Snapshot, Ticket, controls

pytestmark = pytest.mark.once


@pytest.fixture
def aside():
    """A place for arrays, and what shares them there."""
    place = {}

    def put(array):
        place[len(place)] = array.copy()
        return len(place) - 1

    return place, Sharing(put, lambda key: place.update({key: None}))


def sent(shared, place, value):
    pickled, handles = shared.dumps(value)
    arrays = [place[handle] for handle in handles]
    for array in arrays:
        array.flags.writeable = False
    return loads(pickled, arrays), handles


def test_a_large_array_goes_out_once_for_as_long_as_it_is_held(aside):
    place, shared = aside
    large, small = np.arange(LARGE, dtype="int8"), np.arange(3)
    (one, two), handles = sent(shared, place, [{"a": large, "b": small}, large])
    assert handles == [0, 0] and one["a"] is two
    np.testing.assert_array_equal(two, large)
    np.testing.assert_array_equal(one["b"], small)
    assert sent(shared, place, (large,))[1] == [0]
    del large
    gc.collect()
    assert len(shared) == 0 and place[0] is None


@pytest.mark.parametrize("array", [np.full(LARGE, None), np.zeros(LARGE, "U3")])
def test_arrays_of_other_things_arrive_as_well(aside, array):
    place, shared = aside
    (found,), _ = sent(shared, place, (array,))
    np.testing.assert_array_equal(found, array)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = np.arange(LARGE).astype(ml_dtypes.bfloat16)
    (found,), handles = sent(shared, place, (half,))
    assert not handles and found.dtype == half.dtype


@pytest.fixture(scope="module")
def model():
    # A control exchanges layers that are alike.
    blocks = [keras.layers.Dense(6, name=f"block_{i}") for i in range(2)]
    return mask_model(keras.Sequential([keras.Input((6,)), *blocks]))


@pytest.mark.parametrize("name", sorted(controls.CONTROLS.names()))
def test_a_control_is_the_same_where_it_is_sent_to(name, model, aside, monkeypatch):
    """And it changes nothing of what it is made of, which others are made of, too."""
    monkeypatch.setattr(sharing, "LARGE", 0)
    place, shared = aside
    state, masks = get_state(model), get_masks(model)
    rng = np.random.default_rng(0)
    drawn = Masks({n: rng.random(mask.shape) < 0.5 for n, mask in masks.items()})
    scores = {n: rng.random(mask.shape) for n, mask in masks.items()}
    snapshot = Snapshot.untrained(
        masks, state, rng=np.random.default_rng(1), shared_model=None, scores=scores
    )
    made = ControlTicket(controls.get(name), Ticket(drawn, state, 0, 9), snapshot)
    task = StoredTask(which=TrainingId(0, 1, name), ticket=made, seed=7)
    there, handles = sent(shared, place, task)
    assert handles and there.which == task.which
    one, other = (each.make(model, None) for each in (task, there))
    assert one.masks == other.masks and one.steps == other.steps == 9
    for key, value in one.weights.items():
        np.testing.assert_array_equal(value, other.weights[key])
