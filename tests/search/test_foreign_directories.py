"""Directories from elsewhere: altered, moved, mixed up with other files."""

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_lottery import files
from keras_lottery.files import (
    CorruptedFileError,
    read_record,
    read_sealed,
    write_record,
    write_sealed,
)
from keras_lottery.masks import Masks
from keras_lottery.search import Run
from keras_lottery.search.store import TrainingId
from keras_lottery.study.report import write, write_report
from tests.search.small_search import FIT, make, numbers

pytestmark = pytest.mark.once

CARDS = {
    "run.json": {"data": "digits", "model": "lenet_5"},
    "reports.json": {
        "level": 1,
        "density": 0.5,
        "exports": [
            {
                "path": "a.tflite",
                "format": "litert",
                "bytes": 10,
                "gzip_bytes": 5,
                "dense_bytes": 20,
                "max_difference": 0.1,
                "accuracy": None,
                "keras_accuracy": 0.5,
                "notes": ["one"],
            }
        ],
    },
}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A copy of a search, with all files that one may have; tests leave it whole."""
    directory = tmp_path_factory.mktemp("foreign") / "run"
    run = Run.load(shutil.copytree(finished.directory, directory))
    for name, card in CARDS.items():
        write_sealed(directory / name, card)
    return run


@pytest.fixture
def changing(run):
    """A file of the run, which is whole again afterwards."""
    kept = {}

    def change(name):
        path = run.directory / name
        kept.setdefault(path, path.read_bytes())
        return path

    yield change
    for path, content in kept.items():
        path.write_bytes(content)


def read_all(run):
    """Asks for all that a run tells."""
    run = Run.load(run.directory)
    run.verdict(), run.expected(), run.margin, run.examples, run.data, run.exports
    run.ticket(1), run.curve(1, "reinit"), run.masks(2, 1), run.initial(1)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


ODD = [
    *(None, True, -1, 0, 0.5, 3, 10**9, 10**400, float("nan"), float("inf")),
    *("", "text", "a\x01b", "../../etc", [], {}, [[1]], {"class": 1}),
    *({"class": "Layerwise", "x": 1}, {"a": {"b": 1}}, [1, "a"], deep(100)),
]


def places(value, at=()):
    """Where something is in a value of JSON, down to the model's layers."""
    yield at
    if len(at) < 3 and isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))


def altered(value, at, new):
    """A copy with another value there; `KeyError` stands for none."""
    if not at:
        return new
    value = copy.deepcopy(value)
    inside = value
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = new
    if new is KeyError:
        del inside[at[-1]]
    return value


def alterations(value, count):
    """So many values with one thing changed, and what."""
    rng = random.Random(0)
    each = [(at, n) for at in places(value) for n in [*ODD, *[KeyError] * 3 * bool(at)]]
    for at, new in rng.sample(each, min(count, len(each))):
        yield altered(value, at, new), f"{at}: {new!r:.40}"


def refused_or_harmless(name, what, use, run):
    """Whether it was refused, which is to name the file and the remedy."""
    try:
        use(run)
    except CorruptedFileError as error:
        assert name in str(error) and "Restore" in str(error), what
        return True
    except Exception as error:
        pytest.fail(f"{name}, {what}: {error!r}")
    return False


def seal(path, value):
    """Writes what somebody altered who knows how checksums are made."""
    if isinstance(value, dict):
        value = {**value, files.SEAL: files._seal(value)}
    path.write_text(json.dumps(value))


def page_of(run):
    write_report(run.directory, run.directory.parent / "page.html")


@pytest.mark.parametrize("name", ["settings.json", *CARDS])
def test_altered_settings_and_cards(run, changing, name, monkeypatch):
    monkeypatch.setattr(write, "panels", lambda content: [])
    path = changing(name)
    refused = []
    for i, (value, what) in enumerate(alterations(read_sealed(path), 80)):
        seal(path, value)
        # A page takes longer.
        use = page_of if i % 15 == 0 else read_all
        refused.append(refused_or_harmless(name, what, use, run))
    assert any(refused)


def test_altered_trainings(run, changing):
    name = "replicate_0/level_01/ticket_0.safetensors"
    path = changing(name)
    meta, states, masks = read_record(path, "training")
    refused = []
    for value, what in alterations(meta, 100):
        if isinstance(value, dict) and value.get("kind") == "training":
            write_record(path, value, states, masks)
            refused.append(refused_or_harmless("safetensors", what, read_all, run))
    assert any(refused)


@pytest.mark.parametrize("what", ["no states", "no masks", "other masks", "swapped"])
def test_trainings_with_other_arrays(run, changing, what):
    name = "replicate_0/level_01/ticket_0.safetensors"
    path = changing(name)
    meta, states, masks = read_record(path, "training")
    masks = {"no masks": None, "other masks": Masks({"x": np.ones(1)})}.get(what, masks)
    if what == "swapped":
        masks = Masks({n: np.ones(m.shape[::-1]) for n, m in masks.items()})
    write_record(path, meta, {} if what == "no states" else states, masks)
    with pytest.raises(CorruptedFileError, match=name):
        run.ticket(1)


@pytest.mark.parametrize("place", ["../other.safetensors", "settings.json", ""])
def test_trainings_refer_to_records_of_the_run_alone(run, changing, place):
    path = changing("replicate_0/level_01/ticket_0.safetensors")
    meta, states, masks = read_record(path, "training")
    elsewhere = {"start": [place, "initial", "weights"]}
    write_record(path, meta | {"elsewhere": elsewhere}, states, masks)
    with pytest.raises(CorruptedFileError, match="none of its own"):
        run.ticket(1)


@pytest.mark.parametrize("name", ["settings.json", *CARDS])
def test_every_flipped_bit_is_refused_or_changes_nothing(run, changing, name):
    path = changing(name)
    before, whole = read_sealed(path), path.read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(whole)), min(len(whole), 300)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read_sealed(path) == before
        except CorruptedFileError as error:
            assert name in str(error)


@pytest.mark.parametrize(
    "to",
    [
        TrainingId(0, 2, "ticket"),
        TrainingId(1, 1, "ticket"),
        TrainingId(0, 1, "reinit"),
    ],
)
def test_a_training_that_was_moved_is_refused(run, changing, to):
    moved = run.store.training(TrainingId(0, 1, "ticket"))
    changing(run.store.training(to)).write_bytes(moved.read_bytes())
    with pytest.raises(CorruptedFileError, match=r"it was moved there: .*level 1"):
        run.results()


def test_initial_weights_that_were_moved_are_refused(run, changing):
    changing(run.store.initial(1)).write_bytes(run.store.initial(0).read_bytes())
    with pytest.raises(CorruptedFileError, match="that of replicate 0"):
        run.initial(1)


FOREIGN = [
    "replicate_0.bak/level_01/ticket_0.safetensors",
    "replicate_x/level_01/ticket_0.safetensors",
    "replicate_00/level_01/ticket_0.safetensors",
    "replicate_0/level_old/ticket_0.safetensors",
    "replicate_0/level_1/ticket_0.safetensors",
    "replicate_0/level_01/ticket_0 (copy).safetensors",
    "replicate_0/level_01/ticket_a.safetensors",
    "replicate_0/level_01/ticket.safetensors",
    "replicate_0/initial.bak.safetensors",
]


def test_foreign_files_are_left_alone(finished, tmp_path):
    copied = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    record = copied / "replicate_0/level_01/ticket_0.safetensors"
    for name in FOREIGN:
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record, copied / name)
    run = Run.load(copied)
    assert run.training_ids() == finished.training_ids()
    again = make(copied, replicates=2)
    again.search(**FIT)
    assert numbers(again).equals(numbers(finished))
    run.store.clear()
    left = {p.relative_to(copied).as_posix() for p in copied.rglob("*") if p.is_file()}
    assert left == {*FOREIGN, ".lock", ".locks/replicate_0", ".locks/replicate_1"}
