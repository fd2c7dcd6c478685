"""Settings of all tests: quiet TensorFlow, other backends, hypothesis."""

import os
from pathlib import Path

# Read by TensorFlow when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import keras
import pytest

hypothesis.settings.register_profile(
    "keras_lottery",
    deadline=None,
    max_examples=20,
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("keras_lottery")

PACKAGE = Path(__file__).parents[1] / "keras_lottery"
# Doctests cannot be marked: those of these modules need TensorFlow.
TENSORFLOW_ONLY = (
    PACKAGE / "deploy/files.py",
    PACKAGE / "export/litert.py",
    PACKAGE / "export/micro.py",
    PACKAGE / "export/saved_model.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs TensorFlow on the other backends."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    skip = pytest.mark.skip(reason=f"needs TensorFlow; the backend is {backend}")
    for item in items:
        if item.get_closest_marker("tensorflow") or item.path in TENSORFLOW_ONLY:
            item.add_marker(skip)
