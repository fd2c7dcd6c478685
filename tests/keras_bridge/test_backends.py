"""The backends that the library works on."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_lottery.keras_bridge.backends import check_backend

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
