"""The backends that the library works on."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_lottery.keras_bridge.architecture import from_text, to_text
from keras_lottery.keras_bridge.backends import check_backend
from keras_lottery.keras_bridge.internals import versions

ROOT = Path(__file__).parents[2]


def test_the_backends_of_the_tests_are_accepted():
    check_backend()
    check_backend(keras.backend.backend())


@pytest.mark.parametrize("name", ["numpy", "openvino"])
def test_other_backends_are_refused(name):
    with pytest.raises(ImportError, match=f"Received: {name}. Set KERAS_BACKEND to"):
        check_backend(name)


@pytest.mark.once
def test_the_library_is_not_imported_on_another_backend():
    run = subprocess.run(
        [sys.executable, "-c", "import keras_lottery"],
        env=os.environ | {"KERAS_BACKEND": "numpy", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("ImportError: keras_lottery works on")


@pytest.mark.once
def test_a_model_of_another_backend_is_not_compiled_on_torch(monkeypatch):
    """By a compiler of C++, that is, and its steps are not several at once."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", jit_compile=True, steps_per_execution=5)
    text = to_text(model)
    assert from_text(text).jit_compile
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    again = from_text(text)
    assert again.compiled and not again.jit_compile
    assert again.steps_per_execution == 1


@pytest.mark.once
def test_settings_that_only_newer_versions_know_are_left_out(monkeypatch):
    monkeypatch.setattr(versions, "NEWER_SETTINGS", {"new"})
    config = {"layers": [{"new": None, "units": None}, {"new": 3}], "new": None}
    wanted = {"layers": [{"units": None}, {"new": 3}]}
    assert versions.without_newer_settings(config) == wanted
