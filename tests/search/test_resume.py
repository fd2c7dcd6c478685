"""A search in a directory: loaded, gone on with, killed, damaged."""

import shutil
import warnings
from pathlib import Path

import keras
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery.engines.record import TrainingRecord
from keras_lottery.files import CorruptedFileError, read_sealed, write_sealed
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.tickets.rewind import FineTune, Rewind
from tests.search.small_search import FIT, Y, build, functional, make, numbers


@pytest.fixture
def copy(finished, tmp_path):
    """The directory of a finished search, to be damaged."""
    return Path(shutil.copytree(finished.store.directory, tmp_path / "run"))


def test_load_opens_a_stored_search(finished):
    loaded = LotteryTicketSearch.load(finished.store.directory)
    pd.testing.assert_frame_equal(loaded.results(), finished.results())
    assert loaded.ticket(2).masks == finished.ticket(2).masks
    pd.testing.assert_frame_equal(loaded.search(**FIT), finished.results())
    with pytest.raises(FileNotFoundError):
        LotteryTicketSearch.load(finished.store.directory / "nothing")


@pytest.mark.once
def test_load_restores_allocation_and_rewind(tmp_path):
    allocation = kl.allocation.Layerwise({"output": 0.1}, rate=0.3)
    arguments = {"allocation": allocation, "rewind": Rewind(FineTune(5))}
    search = make(tmp_path, **arguments, schedule=[0.5], controls={})
    search.search(**FIT | {"epochs": 1})
    loaded = LotteryTicketSearch.load(tmp_path)
    assert loaded.allocation == allocation
    assert loaded.rewind == Rewind(FineTune(5))
    table = loaded.search(**FIT | {"epochs": 1})
    pd.testing.assert_frame_equal(table, search.results())


@pytest.mark.once
@pytest.mark.parametrize("granularity", [(4, 1), "2:4"])
def test_groups_at_every_level(tmp_path, granularity):
    arguments = {"granularity": granularity, "schedule": [0.3, 0.5]}
    search = make(tmp_path, **arguments, rewind="continue", controls={})
    fit = FIT | {"epochs": 1}
    search.search(**fit)
    loaded = LotteryTicketSearch.load(tmp_path)
    assert loaded.granularity == granularity
    pd.testing.assert_frame_equal(loaded.search(**fit), search.results())
    before = search.ticket(0).masks
    for level, sparsity in ((1, 0.3), (2, 0.5)):
        masks = search.ticket(level).masks
        assert masks.sparsity == pytest.approx(sparsity, abs=2 / masks.size)
        for name, mask in masks.items():
            assert not (mask & ~before[name]).any()
            # Both layers have inputs that 4 does not divide.
            for start in range(0, len(mask), 4):
                kept = mask[start : start + 4].sum(axis=0)
                size = len(mask[start : start + 4])
                least = 0 if granularity == (4, 1) else size // 2
                assert set(kept) <= {least, size}
        before = masks
    with pytest.raises(ValueError, match=r"granularity: .* there, 'weight' here"):
        make(tmp_path, **arguments | {"granularity": "weight"}).search(**fit)


@pytest.mark.once
def test_more_may_be_asked_for_later(tmp_path, finished):
    """More levels, replicates and controls, and then fewer levels."""
    make(tmp_path, schedule=[0.5], controls={}).search(**FIT)
    grown = make(tmp_path, replicates=2)
    grown.search(**FIT)
    pd.testing.assert_frame_equal(numbers(grown), numbers(finished))
    fewer = make(tmp_path, replicates=2, schedule=[0.5])
    with pytest.warns(UserWarning, match=r"holds more .*schedule: .* there"):
        table = fewer.search(**FIT)
    pd.testing.assert_frame_equal(table, grown.results())


def weight(snapshot):
    """A criterion of the user's own."""
    return {name: snapshot.final[name] for name in snapshot.masks}


@pytest.mark.once
@pytest.mark.parametrize(
    ("search", "fit", "message"),
    [
        ({"seed": 1}, {}, r"seed: 0 there, 1 here"),
        ({"rewind_to": 2}, {}, "rewind_to"),
        ({}, {"batch_size": 8}, "batch_size: 16 there, 8 here"),
        ({}, {"y": 1 - Y[:100]}, "train"),
        ({"model": lambda: build(learning_rate=0.02)}, {}, "learning_rate"),
        ({"criterion": weight}, {}, "criterion: 'magnitude' there, '.*weight' here"),
        ({}, {"callbacks": [keras.callbacks.EarlyStopping()]}, "callbacks"),
    ],
)
def test_other_settings_in_the_same_directory_are_refused(
    finished, search, fit, message
):
    before = finished.results()
    with pytest.raises(ValueError, match=message):
        make(finished.store.directory, replicates=2, **search).search(**FIT | fit)
    pd.testing.assert_frame_equal(finished.results(), before)


class Killed(BaseException):
    """Ends the process, as far as the search can tell."""


@pytest.mark.representative
def test_a_search_killed_while_training_resumes_to_the_same(tmp_path, finished):
    class Kill(keras.callbacks.Callback):
        """Kills at steps of the whole search; copies share the count."""

        def on_train_batch_end(self, batch, logs=None):
            Kill.steps += 1
            if Kill.steps in (15, 47):
                raise Killed

    Kill.steps = 0
    for _ in range(2):
        with pytest.raises(Killed):
            make(tmp_path, replicates=2).search(**FIT, callbacks=[Kill()])
    resumed = make(tmp_path, replicates=2)
    resumed.search(**FIT, callbacks=[Kill()])
    pd.testing.assert_frame_equal(numbers(resumed), numbers(finished))


@pytest.mark.once
@pytest.mark.parametrize("engine", ["fit", "fused"])
def test_a_training_that_was_interrupted_goes_on(tmp_path, monkeypatch, engine):
    how = {"schedule": [0.5], "engine": engine, "workers": 0}
    whole = make(tmp_path / "whole", **how).search(**FIT)
    real, steps = TrainingRecord.reached, []

    def reached(self, step):
        real(self, step)
        steps.append(step)
        if len(steps) in (ends[engine], 2 * ends[engine]):
            raise Killed

    ends = {"fit": 9, "fused": 3}
    monkeypatch.setattr(TrainingRecord, "reached", reached)
    for _ in range(2):
        with pytest.raises(Killed):
            make(tmp_path / "run", **how).search(**FIT, checkpoint=4)
    assert len(list(tmp_path.rglob("*.unfinished"))) == 1
    search = make(tmp_path / "run", **how)
    table = search.search(**FIT, checkpoint="0.5ep")
    pd.testing.assert_frame_equal(
        table.drop(columns="seconds"), whole.drop(columns="seconds")
    )
    # No step was done twice but those since the last state.
    assert len(steps) < 2 * ends[engine] + len(whole) * 12
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.once
def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, finished, monkeypatch):
    real, calls = kl.files.write_atomically, []

    def fill(file):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    def limited(path, content):
        is_record = path.suffix == ".safetensors"
        calls.extend([path] * is_record)
        real(path, fill if is_record and len(calls) in (2, 6) else content)

    monkeypatch.setattr(kl.files, "write_atomically", limited)
    kept = set()
    # The second record of all, and the fourth of those that were left.
    for records in (1, 4):
        with pytest.raises(OSError, match="No space left"):
            make(tmp_path).search(**FIT)
        written = {path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
        assert kept <= written and len(written) == records
        assert not list(tmp_path.rglob(".writing*"))
        kept = written
    resumed = make(tmp_path)
    resumed.search(**FIT)
    assert kept <= {path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    first = numbers(finished).query("replicate == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(numbers(resumed), first)


@pytest.mark.once
def test_damaged_files_are_named_and_done_again(copy, finished):
    cut, flipped, empty = damaged = [
        copy / "replicate_0" / name
        for name in (
            "level_01/ticket_0.safetensors",
            "level_01/reinit_0.safetensors",
            "initial.safetensors",
        )
    ]
    content = bytearray(flipped.read_bytes())
    content[len(content) // 3] ^= 0xFF
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    empty.write_bytes(b"")
    others = set(copy.rglob("*.safetensors")) - set(damaged)
    times = {path: path.stat().st_mtime_ns for path in others}
    again = make(copy, replicates=2)
    with pytest.warns(UserWarning) as told:
        again.search(**FIT)
    for path in damaged:
        assert any(path.name in str(warning.message) for warning in told)
    pd.testing.assert_frame_equal(numbers(again), numbers(finished))
    assert times == {path: path.stat().st_mtime_ns for path in others}


@pytest.mark.once
def test_lost_initial_weights_of_a_given_model_are_not_replaced_by_others(tmp_path):
    fit = FIT | {"epochs": 1}
    arguments = {"schedule": [0.5], "controls": {}}
    make(tmp_path, model=build(), **arguments).search(**fit)
    initial = tmp_path / "replicate_0" / "initial.safetensors"
    initial.write_bytes(b"")
    with pytest.raises(CorruptedFileError, match=r"initial\.safetensors"):
        make(tmp_path, model=build(), **arguments).search(**fit)
    initial.unlink()
    with pytest.raises(CorruptedFileError, match=r"initial\.safetensors' is gone"):
        make(tmp_path, model=build(), **arguments).search(**fit)


@pytest.mark.once
def test_damaged_settings_are_refused_until_they_are_deleted(copy, finished):
    settings = copy / "settings.json"
    settings.write_text("{")
    with pytest.raises(CorruptedFileError, match=r"settings\.json.*delete it"):
        make(copy, replicates=2).search(**FIT)
    settings.unlink()
    again = make(copy, replicates=2).search(**FIT)
    pd.testing.assert_frame_equal(again, finished.results())


@pytest.mark.once
def test_another_backend_is_refused_and_other_versions_are_told(copy, finished):
    path = copy / "settings.json"
    settings = read_sealed(path)
    other = settings["versions"] | {"keras": "3.0"}
    write_sealed(path, settings | {"versions": other})
    with pytest.warns(UserWarning, match=r"other versions: keras 3\.0 there") as told:
        again = make(copy, replicates=2)
        again.search(**FIT)
    assert len(told) == 1
    assert again.settings["versions"] == other
    for training in again.trainings().values():
        assert training["versions"] == settings["versions"]
    write_sealed(path, settings | {"versions": other | {"backend": "another"}})
    with pytest.raises(ValueError, match="trained on the backend another"):
        make(copy, replicates=2).search(**FIT)


@pytest.mark.once
def test_clear_removes_the_search_and_nothing_else(copy):
    (copy / "notes.txt").write_text("mine")
    store = LotteryTicketSearch.load(copy).store
    store.clear()
    locks = store.lock_of(0).parent
    assert set(copy.iterdir()) == {copy / "notes.txt", store.lock, locks}


@pytest.mark.once
def test_a_loaded_search_excludes_the_same_from_weight_decay(tmp_path):
    def build():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    how = {"schedule": [0.5], "controls": None, "workers": 0, "engine": "fit"}
    LotteryTicketSearch(build, directory=tmp_path, **how).search(**FIT)
    before = LotteryTicketSearch.load(tmp_path).results()
    LotteryTicketSearch.load(tmp_path, replicates=2).search(**FIT)
    after = LotteryTicketSearch.load(tmp_path).results()
    assert len(after) == 2 * len(before)


@pytest.mark.once
def test_a_loaded_search_of_a_graph_goes_on(tmp_path):
    arguments = {"schedule": [0.5], "controls": {}}
    fit = FIT | {"epochs": 1}
    make(tmp_path, functional, **arguments).search(**fit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = LotteryTicketSearch.load(tmp_path, replicates=2)
        assert len(loaded.search(**fit)) == 4


@pytest.mark.once
def test_other_weights_of_a_given_model_are_not_taken_silently(tmp_path):
    model = build()
    fit = FIT | {"epochs": 1}
    first = make(tmp_path, model, schedule=[0.5], controls={}).search(**fit)
    other = make(tmp_path, build(), schedule=[0.5], controls={})
    with pytest.warns(UserWarning, match="began with other weights"):
        pd.testing.assert_frame_equal(other.search(**fit), first)
