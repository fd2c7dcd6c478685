"""Settings of all tests: quiet TensorFlow, other backends, hypothesis."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator

# Read by TensorFlow when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Read by torch: its threads wait for each other in a loop, and on a busy machine that
# takes ten times as long as the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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

BACKEND = keras.backend.backend()
REASONS = {"tensorflow": "needs TensorFlow", "once": "tested once, on TensorFlow"}
if BACKEND == "torch":
    REASONS["fused"] = "trains several steps in one program"


def pytest_collection_finish() -> None:
    """Garbage need not be sought in what was imported, nor after each few objects."""
    gc.set_threshold(20_000, 20, 100)
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Iterator[None]:
    """Nor in what a file of tests has left: each conversion to LiteRT seeks it."""
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, on the other backends, what needs TensorFlow, knows no backend or is a
    doctest."""
    if BACKEND == "tensorflow":
        return
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.once)
        for name, reason in REASONS.items():
            if item.get_closest_marker(name):
                reason = f"{reason}; the backend is {BACKEND}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings by `fit` take no time; see `pretend`."""
    from keras_lottery.engines.fit import FitEngine
    from tests.search.small_search import pretend

    monkeypatch.setattr(FitEngine, "train", pretend)
