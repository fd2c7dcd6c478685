"""What is compared when a search goes on, and what is not."""

import functools

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.files import (
    CorruptedFileError,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from keras_lottery.search.settings import (
    _compared,
    check_same,
    describe,
    describe_array,
    describe_callback,
    describe_model,
    differences,
    keep_settings,
    merge,
    restore,
)
from keras_lottery.search.store import Store
from keras_lottery.tickets.allocation import Layerwise, Uniform
from keras_lottery.tickets.rewind import FineTune, Rewind
from tests.search.small_search import functional

pytestmark = pytest.mark.once


def paths(old, new):
    return [path for path, _, _ in differences(old, new)]


def own(snapshot):
    """A criterion of the user's own."""


def changed(function):
    """Another function of the same name."""

    def other(snapshot):
        return function(snapshot)

    other.__qualname__ = function.__qualname__
    return other


def test_functions_are_known_by_their_names():
    assert describe(own) == f"{__name__}.own" == describe(changed(own))
    assert describe(functools.partial(own, 1, rate=0.5)) == {
        "function": describe(own),
        "args": [1],
        "rate": 0.5,
    }
    assert describe(lambda: 0).endswith(
        "test_functions_are_known_by_their_names.<locals>.<lambda>"
    )
    assert describe(np.ndarray) == "numpy.ndarray"


@pytest.mark.parametrize(
    "value", [Layerwise({"output": 0.1}, rate=0.3), Rewind(FineTune(5))]
)
def test_objects_of_known_classes_are_restored(value, tmp_path):
    write_json(tmp_path / "settings.json", describe(value))
    stored = read_json(tmp_path / "settings.json")
    assert restore(stored, Layerwise, Rewind, FineTune) == value
    assert restore(stored) == stored


def test_of_callbacks_the_numbers_are_compared():
    def stop(patience, verbose=0):
        callback = keras.callbacks.EarlyStopping(
            "val_loss", patience=patience, verbose=verbose
        )
        callback.best = verbose  # What it keeps for itself is not compared.
        return [describe_callback(callback)]

    assert paths(stop(1), stop(2)) == ["[0].patience"]
    assert paths(stop(1), stop(1, verbose=1)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda i: keras.callbacks.CSVLogger(f"{i}.csv"),
        lambda i: kl.callbacks.GradualPruning(0.5, 0, 9, allocation=Uniform()),
    ],
)
def test_paths_are_not_compared(make):
    one, two = (describe_callback(make(i)) for i in range(2))
    assert one == two
    assert one["class"] == type(make(0)).__name__


def test_models_are_compared_by_layers_wiring_and_compilation():
    model = describe_model(functional())
    assert paths(model, describe_model(functional())) == []
    crossed = paths(model, describe_model(functional(crossed=True)))
    assert crossed and all(path.startswith("wiring.") for path in crossed)
    wider = paths(model, describe_model(functional(units=7)))
    assert {"layers.a.units", "layers.b.units"} <= set(wider)
    rate = describe_model(functional(learning_rate=0.5))
    assert paths(model, rate) == ["optimizer.learning_rate"]


def test_arrays_are_compared_by_what_they_hold():
    array = np.arange(6.0).reshape(2, 3)
    same = [array, array.copy(order="F"), np.vstack([array, array])[:2]]
    others = [array.T, array.ravel(), array + 1, array.astype("float32"), np.array(0.0)]
    others += [array.astype(ml_dtypes.bfloat16), np.array(["a", "b"])]
    assert len({describe_array(one) for one in same}) == 1
    assert len({describe_array(one) for one in [array, *others]}) == 8
    # Texts of Python's lie anywhere in memory.
    one, two = (np.array([word + "c", "a"], object) for word in ("b", "ab"[1:]))
    assert describe_array(one) == describe_array(two)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": float("nan")}, {"a": 1}, ["a"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ({"a": None}, {}, []),
        ({"a": {"b": 1}}, {"a": 1}, ["a"]),
        ([1, [2, 3]], [1, [2, 4]], ["[1][1]"]),
        ([1, 2], [1], [""]),
    ],
)
def test_differences(old, new, found):
    assert paths(old, new) == found


def test_the_error_shows_the_differences():
    with pytest.raises(
        ValueError, match=r"'runs/a' .*\n  a\[1\]: 2 there, 3 here\nChoose"
    ):
        check_same({"a": [1, 2], "b": 0}, {"a": (1, 3), "b": 0}, "runs/a")


SETTINGS = {
    "seed": 1,
    "replicates": 2,
    "controls": {"reinit": 1, "mine": ["module.mine", 1]},
    "report_levels": [2],
    "initial": "first",
    "versions": {"backend": "own", "keras": "3"},
    "objective": {"class": "Objective", "name": "val_loss", "direction": "min"},
    "engine": "fit",
    "in_workers": False,
    "architecture": "text",
}


def stored(tmp_path):
    store = Store(tmp_path)
    write_sealed(store.settings, SETTINGS)
    return store


def test_more_may_be_asked_for_and_the_rest_stays(tmp_path):
    asked = {
        "replicates": 1,
        "controls": {"reinit": 1, "shuffle": 2, "mine": ["module.mine", 3]},
        "report_levels": [1, 2],
        "initial": "other",
        "versions": {"backend": "own", "keras": "4"},
        "architecture": "another text",
    }
    with (
        pytest.warns(UserWarning, match="keras 3 there, 4 here"),
        pytest.warns(UserWarning, match=r"\(replicates: 2 there, 1 here\)"),
    ):
        merged = merge(stored(tmp_path), SETTINGS | asked)
    stays = {name: SETTINGS[name] for name in ("replicates", "initial", "versions")}
    assert merged == SETTINGS | asked | stays
    assert read_sealed(Store(tmp_path).settings) == SETTINGS


def test_what_is_there_and_not_asked_for_is_told(tmp_path):
    asked = {"controls": {"mine": ["module.mine", 1]}, "report_levels": [1]}
    with pytest.warns(
        UserWarning, match=r"controls: .*reinit.*; report_levels: \[1, 2"
    ):
        merge(stored(tmp_path), SETTINGS | asked)


def test_more_levels_may_be_asked_for():
    def check(one, other):
        old, new = (
            SETTINGS | {"schedule": {"sparsities": sparsities}}
            for sparsities in (one, other)
        )
        check_same(_compared(old, new), _compared(new, old), "")

    check([0.5], [0.5, 0.8])
    check([0.5, 0.8], [0.5])
    for other in ([0.6, 0.8], [0.5, 0.9], [0.6]):
        with pytest.raises(ValueError, match=r"schedule\.sparsities"):
            check([0.5, 0.8], other)


@pytest.mark.parametrize("keep", [merge, keep_settings])
def test_another_backend_is_refused(tmp_path, keep):
    other = SETTINGS | {"versions": {"backend": "another", "keras": "3"}}
    with pytest.raises(ValueError, match=r"trained on the backend own.*=another"):
        keep(stored(tmp_path), other)


def test_other_versions_are_told(tmp_path):
    store = stored(tmp_path)
    with pytest.warns(UserWarning, match="keras 3 there, 4 here"):
        keep_settings(store, SETTINGS | {"versions": {"backend": "own", "keras": "4"}})
    assert read_sealed(store.settings) == SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed: 1 there, 2 here"),
        (
            {"controls": {"mine": ["other.mine", 1]}},
            r"mine: 'module\.mine' there",
        ),
        ({"controls": {"mine": 1}}, r"controls\.mine: .* there, None here"),
        ({"steps": 5}, "steps: None there, 5 here"),
    ],
)
def test_another_search_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        merge(stored(tmp_path), SETTINGS | change)


def test_without_settings_the_new_ones_are_taken(tmp_path):
    assert merge(Store(tmp_path), SETTINGS) == SETTINGS


@pytest.mark.parametrize("text", ["{", "{}", '{"seed": 1}'])
def test_damaged_settings_are_not_written_over(tmp_path, text):
    store = Store(tmp_path)
    store.settings.write_text(text)
    for keep in (merge, keep_settings):
        with pytest.raises(CorruptedFileError, match=r"settings\.json.*delete it"):
            keep(store, SETTINGS)
    assert store.settings.read_text() == text


@pytest.mark.parametrize(
    "make",
    [
        lambda i: kl.callbacks.GradualPruning({"dense": (0.5, 0.9)[i]}, 0, 9),
        lambda i: kl.callbacks.QuantizationAware(exclude=[f"layer_{i}"]),
    ],
)
def test_shares_and_patterns_of_callbacks_are_compared(make):
    one, two = (describe_callback(make(i)) for i in range(2))
    assert one != two
