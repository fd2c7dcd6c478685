"""Reading a run, without the functions and the model that it was made of."""

import shutil

import keras
import numpy as np
import pytest

from keras_lottery import LotteryTicketSearch
from keras_lottery.files import CorruptedFileError, read_sealed, write_sealed
from keras_lottery.keras_bridge import architecture
from keras_lottery.search import Run
from tests.search.small_search import FIT

pytestmark = pytest.mark.once


@pytest.fixture
def no_models(monkeypatch):
    """Fails where a model is built."""
    monkeypatch.delattr(keras.layers.Layer, "__init__")
    monkeypatch.delattr(architecture, "from_text")


def test_reading_builds_no_model(finished, no_models):
    run = Run.load(finished.directory)
    assert run.results().equals(finished.results())
    assert run.verdict().equals(finished.verdict())
    assert run.best() == finished.best()
    assert run.training_ids() == finished.training_ids()
    assert run.expected() == set(run.training_ids())
    assert run.curve(1) == finished.curve(1)
    ticket, own = run.ticket(1, 1), finished.ticket(1, 1)
    assert ticket.card == own.card
    for state in ("masks", "weights", "trained"):
        found, expected = getattr(ticket, state), getattr(own, state)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert run.masks(1, 1) == ticket.masks
    np.testing.assert_equal(run.trained(1, 1), ticket.trained)
    np.testing.assert_equal(run.initial(1), own.weights)


def test_reading_needs_no_functions(finished, tmp_path):
    copy = shutil.copytree(finished.directory, tmp_path / "run")
    path = copy / "settings.json"
    own = {"criterion": "thesis.worth", "controls": {"reinit": ["thesis.reinit", 1]}}
    write_sealed(path, read_sealed(path) | own)
    loaded = LotteryTicketSearch.load(copy)
    for run in (Run.load(copy), loaded):
        assert run.results().equals(finished.results())
        assert run.expected() == set(run.training_ids())
    with pytest.raises(ValueError, match=r"give its functions to `load`.*thesis"):
        loaded.search(**FIT)
    with pytest.raises(ValueError, match="magic"):
        LotteryTicketSearch.load(copy, criterion="magic")


def test_what_is_missing_is_known(finished, tmp_path):
    copy = shutil.copytree(finished.directory, tmp_path / "run")
    run = Run.load(copy)
    lost = run.training_ids()[-1]
    run.store.training(lost).unlink()
    assert run.expected() - set(run.training_ids()) == {lost}
    assert len(run.results()) == len(finished.results()) - 1


def test_damaged_files_raise_or_are_told(finished, tmp_path):
    copy = shutil.copytree(finished.directory, tmp_path / "run")
    run = Run.load(copy)
    path = run.store.training(run.training_ids()[0])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        run.results()
    damaged = []
    assert len(run.trainings(damaged)) == len(finished.results()) - 1
    assert len(damaged) == 1 and str(path) in damaged[0]


@pytest.mark.parametrize("settings", [None, "{}", '{"editor.fontSize": 12}', "[]"])
def test_a_directory_without_a_run_is_refused(tmp_path, settings):
    error, message = FileNotFoundError, r"(?s)Received: '.*keras-lottery"
    if settings:
        (tmp_path / "settings.json").write_text(settings)
        error, message = CorruptedFileError, "no checksum"
    for load in (Run.load, LotteryTicketSearch.load):
        with pytest.raises(error, match=message):
            load(tmp_path)


def test_what_is_not_stored_is_refused_with_what_is(finished):
    for read in (finished.ticket, finished.masks, finished.trained, finished.curve):
        with pytest.raises(FileNotFoundError, match="level 7") as error:
            read(7)
        assert "ticket at levels [0, 1, 2]" in str(error.value)
        assert "replicates [0, 1]" in str(error.value)
    with pytest.raises(FileNotFoundError, match="Did you mean 'reinit'"):
        finished.curve(1, "reinitt")
