"""Tickets and their files."""

import dataclasses
import io
import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models_zoo import (
    ZOO,
    arrays,
    assert_equal,
    cnn,
    compiled,
    fit,
    mlp,
    outputs,
    pruned,
    pruned_weights,
    scramble,
)

from keras_lottery import store
from keras_lottery.layers import get_masks, get_state, set_state
from keras_lottery.masks import Masks
from keras_lottery.store import CorruptedFileError
from keras_lottery.ticket import Ticket, load_ticket

# Larger than what zipfile reads at once, 4096 bytes.
STATE = {
    "a/kernel": np.random.default_rng(0).normal(size=(40, 33)).astype("float32"),
    "a/bias": np.array([np.nan, -0.0, np.inf], "float32"),
}
TICKET = Ticket(
    Masks({"a/kernel": STATE["a/kernel"] > 0}),
    STATE,
    step=3,
    steps=7,
    learning_rate=0.1,
    trained={name: array + 1 for name, array in STATE.items()},
    architecture="{}",
    card={"level": 1, "accuracy": 0.5},
)


def to_bytes(ticket):
    """All that a ticket holds, to the bit."""

    def content(state):
        return state and [
            (n, a.dtype.name, a.shape, a.tobytes()) for n, a in state.items()
        ]

    fields = {f.name: getattr(ticket, f.name) for f in dataclasses.fields(ticket)}
    held = {name: content(fields.pop(name)) for name in ("masks", "weights", "trained")}
    return held | fields | {"card": dict(fields["card"])}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "my.ticket"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a ticket's file."""
    path = tmp_path_factory.mktemp("whole") / "my.ticket"
    TICKET.save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "ticket",
    [
        TICKET,
        Ticket(TICKET.masks, {}),
        dataclasses.replace(TICKET, trained=None, card={}),
    ],
)
def test_round_trip_to_the_bit(ticket, path):
    ticket.save(path)
    assert to_bytes(load_ticket(path)) == to_bytes(ticket)


KINDS = st.sampled_from(["float32", "float16", "float64", "uint32", "int64", "bool"])


@given(
    st.dictionaries(
        st.text("é/:. aA", min_size=1, max_size=8),
        KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0))),
        max_size=3,
    )
)
def test_round_trip_of_any_arrays_and_names(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("any") / "my.ticket"
    masks = {name: array for name, array in state.items() if array.dtype == bool}
    ticket = Ticket(Masks(masks | {"last": [True]}), state)
    ticket.save(path)
    assert to_bytes(load_ticket(path)) == to_bytes(ticket)


def test_round_trip_of_bfloat16(path):
    model = scramble(mlp(dtype="bfloat16"))
    ticket = dataclasses.replace(TICKET, weights=get_state(model))
    ticket.save(path)
    assert to_bytes(load_ticket(path)) == to_bytes(ticket)
    assert "bfloat16" in str(to_bytes(ticket))


@pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
def test_models_of_a_ticket(build, path):
    model = pruned(compiled(scramble(build())))
    trained = pruned(model)
    set_state(trained, get_state(scramble(build(), seed=1)))
    ticket = Ticket(
        get_masks(model),
        get_state(scramble(build())),
        trained=get_state(trained),
        architecture=json.dumps(keras.saving.serialize_keras_object(model)),
    )
    ticket.save(path)
    for again in (ticket, load_ticket(path)):
        for one, other in [
            (again.initial_model(), model),
            (again.trained_model(), trained),
        ]:
            assert_equal(one.get_weights(), other.get_weights())
            np.testing.assert_array_equal(outputs(one), outputs(other))
            assert not pruned_weights(one).any()
            assert one.compiled


def test_models_of_a_ticket_are_copies():
    model = pruned(compiled(scramble(cnn())))
    state, architecture = get_state(model), keras.saving.serialize_keras_object(model)
    ticket = Ticket(get_masks(model), state, architecture=json.dumps(architecture))
    kept = {name: array.copy() for name, array in state.items()}
    first = ticket.initial_model()
    before = arrays(first)
    fit(first)
    assert_equal(ticket.weights.values(), kept.values())
    assert_equal(arrays(ticket.initial_model()), before)


def test_what_a_ticket_lacks_is_said():
    with pytest.raises(ValueError, match="not trained"):
        Ticket(TICKET.masks, STATE).trained_model()
    with pytest.raises(ValueError, match="no architecture"):
        Ticket(TICKET.masks, STATE).initial_model()


def test_the_suffix_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"'\.ticket'.*my\.npz"):
        TICKET.save(tmp_path / "my.npz")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_not_a_damaged_one(path):
    with pytest.raises(FileNotFoundError):
        load_ticket(path)


def test_truncated_files_are_refused(whole, path):
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptedFileError, match=r"my\.ticket"):
            load_ticket(path)


def damaged(path, whole, position, flip):
    """Whether a file with one byte changed is refused; if not, it must be harmless."""
    path.write_bytes(
        whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]
    )
    try:
        ticket = load_ticket(path)
    except CorruptedFileError:
        return True
    assert to_bytes(ticket) == to_bytes(TICKET), f"byte {position} ^ {flip}"
    return False


def test_flipped_bytes_are_detected_or_harmless(whole, path):
    array = whole.index(STATE["a/kernel"].tobytes())
    # All of the first array's headers, where its shape is; all of the directory at the
    # end; some of the rest.
    heads = (
        range(array),
        range(array, len(whole) - 700, 997),
        range(len(whole) - 700, len(whole)),
    )
    detected = [
        damaged(path, whole, position, 1 << position % 8)
        for positions in heads
        for position in positions
    ]
    assert np.mean(detected) > 0.5


@given(st.data())
def test_flipped_bytes_anywhere(tmp_path_factory, whole, data):
    position = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged(tmp_path_factory.mktemp("flip") / "my.ticket", whole, position, flip)


def test_files_that_lack_an_array_are_refused(whole, path):
    """A flipped bit in the archive's directory can hide a member."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for lost in members:
        with zipfile.ZipFile(path, "w") as archive:
            for name in members.keys() - {lost}:
                archive.writestr(name, members[name])
        with pytest.raises(CorruptedFileError):
            load_ticket(path)


def npz(**members):
    return lambda file: np.savez(file, **members)


class Harmful:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


FOREIGN = {
    "empty": lambda file: None,
    "text": lambda file: file.write(b"a ticket\n"),
    "array": lambda file: np.save(file, np.ones(3)),
    "arrays": npz(weights=np.ones(3)),
    "no json": npz(header=np.frombuffer(b"[1", np.uint8)),
    "other json": npz(header=np.frombuffer(b"[1]", np.uint8)),
    "pickle": lambda file: pickle.dump({"header": 1}, file),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(name, path):
    with open(path, "wb") as file:
        FOREIGN[name](file)
    with pytest.raises(CorruptedFileError, match="was not written by keras_lottery"):
        load_ticket(path)


def test_records_of_other_kinds_and_formats_are_refused(path, monkeypatch):
    store.write_record(path, {"kind": "training"}, {})
    with pytest.raises(CorruptedFileError, match=r"Expected a ticket.*training"):
        load_ticket(path)
    monkeypatch.setattr(store, "FORMAT", 99)
    TICKET.save(path)
    monkeypatch.undo()
    with pytest.raises(CorruptedFileError, match=r"format 1 to 2\. .*format 99"):
        load_ticket(path)


def test_nothing_is_unpickled(path, tmp_path):
    trace = tmp_path / "trace"
    objects = np.array([Harmful(trace)], object)
    for write in (
        lambda file: pickle.dump(Harmful(trace), file),
        lambda file: np.save(file, objects, allow_pickle=True),
        npz(header=objects),
    ):
        with open(path, "wb") as file:
            write(file)
        with pytest.raises(CorruptedFileError):
            load_ticket(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace))).close()
    assert trace.exists(), "or the test shows nothing"
