"""Tickets and their files."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keras_lottery as kl
from keras_lottery import files
from keras_lottery.files import CorruptedFileError
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    redraw,
    set_state,
)
from keras_lottery.masks import Masks
from keras_lottery.tickets import Ticket, file, load_ticket
from tests.models_zoo import (
    ZOO,
    arrays,
    assert_equal,
    cases,
    cnn,
    compiled,
    fit,
    mlp,
    outputs,
    pruned,
    pruned_weights,
    scramble,
)

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
    seed=5,
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


def kept(ticket, trained_only=False):
    """What is left of a ticket in its file: nothing of the pruned weights."""

    def fill(state, value):
        return state and {
            name: np.where(ticket.masks[name], array, np.array(value, array.dtype))
            if name in ticket.masks and "float" in array.dtype.name
            else array
            for name, array in state.items()
        }

    return dataclasses.replace(
        ticket,
        weights=ticket.weights if trained_only else fill(ticket.weights, np.nan),
        trained=fill(ticket.trained, 0),
    )


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
    ticket.save(path, weights="all")
    assert to_bytes(load_ticket(path)) == to_bytes(kept(ticket, trained_only=True))
    ticket.save(path)
    assert to_bytes(load_ticket(path)) == to_bytes(kept(ticket))


BITS = {1: "bool", 2: "uint16", 4: "uint32", 8: "uint64"}
KINDS = st.sampled_from(
    ["float32", "float16", "bfloat16", "float64", "uint32", "int64", "bool"]
)


def test_the_card_may_hold_numbers_of_numpy(path):
    card = {"accuracy": np.float32(0.5), "seeds": [np.int64(3)], "good": np.bool_(True)}
    dataclasses.replace(TICKET, card=card).save(path)
    assert load_ticket(path).card == {"accuracy": 0.5, "seeds": [3], "good": True}
    with pytest.raises(TypeError, match=r"JSON can hold.*type ndarray"):
        dataclasses.replace(TICKET, card={"accuracy": np.ones(2)}).save(path)


@st.composite
def arrays_and_masks(draw):
    """An array of any bits at all, NaNs with a payload too, and a mask or none."""
    kind = np.dtype(draw(KINDS))
    shape = draw(hnp.array_shapes(min_dims=0))
    array = draw(hnp.arrays(BITS[kind.itemsize], shape)).view(kind)
    return array, draw(st.none() | hnp.arrays(bool, shape))


@given(
    st.dictionaries(
        st.text("é/:. aA", min_size=1, max_size=8), arrays_and_masks(), max_size=3
    )
)
def test_round_trip_of_any_arrays_and_names(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("any") / "my.ticket"
    state = {name: array for name, (array, _) in parts.items()}
    masks = {name: mask for name, (_, mask) in parts.items() if mask is not None}
    ticket = Ticket(Masks(masks | {"last": [True]}), state, trained=state)
    for weights, left in [("kept", kept(ticket)), ("all", kept(ticket, True))]:
        ticket.save(path, weights)
        assert to_bytes(load_ticket(path)) == to_bytes(left)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_round_trip_of_small_floats(kind, path):
    model = pruned(scramble(mlp(dtype=kind)))
    ticket = Ticket(get_masks(model), get_state(model))
    ticket.save(path)
    again = load_ticket(path)
    assert to_bytes(again) == to_bytes(kept(ticket))
    assert {array.dtype.name for array in again.weights.values()} >= {kind}


def test_a_file_holds_no_more_than_asked(tmp_path):
    rng = np.random.default_rng(0)
    state = {"kernel": rng.normal(size=(300, 100)).astype("float32")}
    ticket = Ticket(Masks({"kernel": rng.random((300, 100)) < 0.05}), state)
    ticket = dataclasses.replace(ticket, trained=state)
    sizes = {}
    for name, arguments in {
        "whole": {"weights": "all"},
        "usual": {},
        "untrained": {"trained": False},
    }.items():
        path = tmp_path / f"{name}.ticket"
        ticket.save(path, **arguments)
        sizes[name] = path.stat().st_size
    live = 4 * ticket.masks.kept
    # 1,074 bytes are the entropy of the mask.
    assert 2 * live + 1074 < sizes["usual"] < 2 * live + 3000
    assert live + 1074 < sizes["untrained"] < live + 3000
    assert 120_000 + live < sizes["whole"] < 120_000 + live + 3000
    assert load_ticket(tmp_path / "untrained.ticket").trained is None


def seeded(build=mlp, seed=3):
    """A ticket whose weights its seed has drawn."""
    keras.utils.set_random_seed(seed)
    model = pruned(compiled(build()))
    weights = redraw(model, seed)
    return Ticket(
        get_masks(model), weights, architecture=architecture.to_text(model), seed=seed
    )


@pytest.mark.parametrize("build", [mlp, cnn])
def test_the_seed_instead_of_weights(build, tmp_path):
    ticket = seeded(build)
    ticket.save(tmp_path / "whole.ticket", weights="all")
    ticket.save(tmp_path / "seed.ticket", weights="seed")
    keras.utils.set_random_seed(99)
    again = load_ticket(tmp_path / "seed.ticket")
    assert to_bytes(again) == to_bytes(ticket)
    held = files.read_record(tmp_path / "seed.ticket", "ticket")[1]
    assert not held.get("weights")


def test_a_model_built_after_the_seed_is_drawn_by_it(path):
    """As the replicates of a search over a function that builds models are."""
    keras.utils.set_random_seed(7)
    model = mask_model(compiled(kl.models.lenet_300_100((8, 8, 1))))
    ticket = Ticket(
        get_masks(model),
        get_state(model),
        architecture=architecture.to_text(model),
        seed=7,
    )
    ticket.save(path, weights="seed")
    assert to_bytes(load_ticket(path)) == to_bytes(ticket)


def test_a_seed_that_draws_other_weights_is_refused(path):
    ticket = seeded()
    weights = {name: array + 1 for name, array in ticket.weights.items()}
    for other, reason in [
        ({"weights": weights}, "rewound to a later step"),
        ({"seed": 4}, "ticket's seed, 4"),
        ({"seed": None}, "seed=None, an arch"),
        ({"architecture": None}, "seed=3, no arch"),
    ]:
        with pytest.raises(ValueError, match=rf"{reason}.*weights='kept'"):
            dataclasses.replace(ticket, **other).save(path, weights="seed")
    assert not path.exists()
    with pytest.raises(ValueError, match=r"'kept', 'all', 'seed'.*weights='none'"):
        ticket.save(path, weights="none")


def test_a_seed_that_draws_other_weights_on_loading_is_refused(path, monkeypatch):
    """As another backend's does."""
    seeded().save(path, weights="seed")
    monkeypatch.setattr(file, "redraw", lambda model, seed: redraw(model, seed + 1))
    with pytest.raises(ValueError, match=r"my.ticket.*here, with Keras.*than with Ker"):
        load_ticket(path)


@pytest.mark.parametrize("name", cases(ZOO, ["branches"]))
def test_models_of_a_ticket(name, path):
    """Of one that was read too, though it lacks the weights that are pruned."""
    build = ZOO[name]
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
    with pytest.raises(ValueError, match=r"ends in \.ticket\..*my\.npz"):
        TICKET.save(tmp_path / "my.npz")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_not_a_damaged_one(path):
    with pytest.raises(FileNotFoundError):
        load_ticket(path)


def refused(path, content):
    path.write_bytes(content)
    try:
        load_ticket(path)
    except CorruptedFileError:
        return True
    return False


def flipped(whole, position, flip):
    return whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]


@given(st.data())
def test_whatever_is_not_the_whole_file_is_refused(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("flip") / "my.ticket"
    position = data.draw(st.integers(0, len(whole) - 1))
    assert refused(path, flipped(whole, position, data.draw(st.integers(1, 255))))
    assert refused(path, whole[:position])
    assert refused(path, whole[position + 1 :])
    assert refused(path, whole + data.draw(st.binary(min_size=1)))
    assert not refused(path, whole)


def test_records_of_other_kinds_are_refused(path):
    files.write_record(path, {"kind": "training"}, {})
    with pytest.raises(CorruptedFileError, match=r"Expected a ticket.*training"):
        load_ticket(path)


@pytest.mark.tensorflow
def test_a_vocabulary_that_a_text_would_lose_is_refused():
    def model(lookup):
        words = keras.Input((2,), dtype="string")
        return keras.Model(words, keras.layers.Dense(2)(lookup(words)))

    adapted = keras.layers.StringLookup(output_mode="multi_hot", name="words")
    adapted.adapt(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"'words' .*has a vocabulary"):
        architecture.to_text(model(adapted))
    vocabulary = adapted.get_vocabulary()
    given = keras.layers.StringLookup(vocabulary=vocabulary, output_mode="multi_hot")
    again = architecture.from_text(architecture.to_text(model(given)))
    assert again.layers[1].get_vocabulary() == vocabulary
