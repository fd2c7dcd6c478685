"""Each state is stored once, and read wherever it is."""

import numpy as np
import pytest

from keras_lottery.files import CorruptedFileError, read_record
from keras_lottery.masks import Masks
from keras_lottery.search.records import Reader, Records
from keras_lottery.search.store import Store, TrainingId

pytestmark = pytest.mark.once

META = {
    "kind": "training",
    "step": 0,
    "steps": 9,
    "learning_rate": None,
    "sparsity": 0.5,
    "metrics": {},
    "curve": {},
    "versions": {},
}


def state(value):
    return {"a": np.full(3, value, "float32"), "b": np.arange(2)}


@pytest.fixture
def store(tmp_path):
    """An initial state, and a training that starts from it."""
    store = Store(tmp_path)
    records = Records(store)
    records.write(
        store.initial(0), {"kind": "initial", "replicate": 0}, {"weights": state(0)}
    )
    write(records, 0, start=state(0), final=state(1))
    return store


def write(records, level, **states):
    masks = Masks.dense({"a": (3,)})
    which = TrainingId(0, level, "ticket")
    meta = {**META, **which._asdict()}
    records.write(place(records.store, level), meta, states, masks)


def place(store, level):
    return store.training(TrainingId(0, level, "ticket"))


def held(store, level):
    """The states that are in the file itself."""
    return list(read_record(place(store, level), "training")[1])


def test_a_state_that_is_stored_is_referred_to(store):
    assert held(store, 0) == ["final"]
    meta, states, masks = Reader(store).read(
        place(store, 0), "training", "start", "final"
    )
    assert meta["kind"] == "training" and masks.kept == 3
    for name, value in (("start", 0), ("final", 1)):
        for weight, array in state(value).items():
            np.testing.assert_array_equal(states[name][weight], array)
            assert states[name][weight].dtype == array.dtype
    # What was not asked for is not looked up.
    assert list(Reader(store).read(place(store, 0), "training")[1]) == ["final"]


def test_what_was_read_is_referred_to(store):
    records = Records(store)
    write(records, 1, start=state(1))
    assert held(store, 1) == ["start"]
    records = Records(store)
    records.training(TrainingId(0, 0, "ticket"))
    write(records, 2, start=state(1), final=state(2), rewind_point=state(2))
    assert held(store, 2) == ["final"]
    states = Reader(store).read(place(store, 2), "training", "start", "rewind_point")[1]
    assert states["start"]["a"].tolist() == [1, 1, 1]
    assert states["rewind_point"]["a"].tolist() == [2, 2, 2]


def test_states_that_differ_in_a_bit_are_stored(store):
    other = state(0)
    other["a"][1] = -0.0
    records = Records(store)
    records.initial(0)
    write(records, 1, start=other, final={**state(0), "b": np.arange(2.0)})
    assert held(store, 1) == ["start", "final"]


def test_a_damaged_file_is_written_whole_and_named(store):
    place(store, 0).write_bytes(b"")
    records = Records(store)
    with pytest.raises(CorruptedFileError, match="level_00"):
        records.training(TrainingId(0, 0, "ticket"))
    write(records, 0, start=state(0), final=state(1))
    assert held(store, 0) == ["start", "final"]
    write(records, 1, start=state(1))
    place(store, 0).write_bytes(b"")
    with pytest.raises(CorruptedFileError, match="level_00"):
        Reader(store).read(place(store, 1), "training", "start")


def test_what_was_refused_is_not_referred_to(store):
    write(Records(store), 2, final=state(2))
    write(Records(store), 1)
    place(store, 2).replace(place(store, 1))
    records = Records(store)
    with pytest.raises(CorruptedFileError, match="it was moved there"):
        records.training(TrainingId(0, 1, "ticket"), "final")
    write(records, 1, final=state(1))
    write(records, 2, start=state(2))
    states = Reader(store).training(TrainingId(0, 2, "ticket"), "start")[1]
    assert states["start"]["a"].tolist() == [2, 2, 2]
