"""What happens in a worker: it makes an engine, and trains what it is sent."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from keras_lottery.engines.engine import Done, Engine, Task
from keras_lottery.search.setup import Setup

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # XLA counts processors by it, on JAX.
    "NPROC": "1",
}
"""The environment of a worker, so that results do not depend on how many there are."""


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker.

    Args:
        traceback: as text.
    """

    traceback: str


_engines: dict[str, Engine] = {}


def train(
    key: str, load: Callable[[], Setup], task: Task | None
) -> Done | Failure | None:
    """Does a task in a worker, which keeps its engine for the next one.

    Args:
        key: names the search.
        load: gives its setup.
        task: what to train; `None` only makes the engine.
    """
    try:
        if key not in _engines:
            _engines.clear()
            _engines[key] = load().make()
        return None if task is None else _engines[key].do(task)
    # Not every exception survives being sent; its text does.
    except Exception:
        return Failure(traceback.format_exc())
