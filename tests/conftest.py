"""Settings of all tests: quiet TensorFlow, other backends, hypothesis."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

# Read by TensorFlow when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Read by JAX: tests compile much, often the same, and run it for a moment. What one
# process has compiled the others find, too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="compiled_by_jax_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

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
# Doctests cannot be marked: those of these files and folders are.
MODULES = {
    "tensorflow": (
        "ship/deploy/files.py",
        "ship/export/litert.py",
        "ship/export/micro.py",
        "ship/export/saved_model.py",
    ),
    "once": (
        "cli",
        "files.py",
        "masks.py",
        "papers/data",
        "papers/experiments",
        "registry.py",
        "search/results.py",
        "search/store.py",
        "ship/deploy",
        "study/plots.py",
        "study/report",
        "tickets/allocation",
        "tickets/grouping.py",
        "tickets/schedules.py",
    ),
}
REASONS = {"tensorflow": "needs TensorFlow", "once": "tested once, on TensorFlow"}


def pytest_collection_finish() -> None:
    """Garbage is collected often: it need not be sought in what was imported."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, on the other backends, what needs TensorFlow or knows no backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    for item in items:
        for name, reason in REASONS.items():
            if item.get_closest_marker(name) or is_in(item.path, MODULES[name]):
                reason = f"{reason}; the backend is {backend}"
                item.add_marker(pytest.mark.skip(reason=reason))


def is_in(path: Path, modules: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(PACKAGE / module) for module in modules)
