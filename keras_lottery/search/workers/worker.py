"""The code that runs in a worker: it builds an engine and trains what it is sent."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from keras_lottery.engines.engine import Engine
from keras_lottery.engines.record import Reached
from keras_lottery.engines.task import Facts, Task, Training
from keras_lottery.search.setup import Setup

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # XLA counts processors by it, on JAX.
    "NPROC": "1",
}
"""The environment of a worker, so that results do not depend on how many there are."""

SECONDS = 1.0
"""Between one report of a training's progress and the next."""


@dataclass(frozen=True)
class Failure:
    """An error in a worker.

    Args:
        traceback: as text.
    """

    traceback: str


class Outcome(NamedTuple):
    """What a worker sends back when a task is done, see `engines.Done`."""

    facts: Facts
    result: Training | FloatingPointError


_engines: dict[str, Engine] = {}


def train(
    key: str,
    load: Callable[[], Setup],
    read: Callable[[], Task | None],
    report: Callable[[Reached], None],
) -> Outcome | Failure | None:
    """Runs a task in a worker, which keeps its engine for the next one.

    Args:
        key: identifies the search.
        load: returns its setup.
        read: returns the task; for `None`, only the engine is built and
            compiled.
        report: is called with the training's progress now and then.
    """
    report(Reached())
    try:
        if key not in _engines:
            _engines.clear()
            _engines[key] = load().make_in_worker()
        task = read()
        if task is None:
            _engines[key].prepare()
            return None
        _, facts, result = _engines[key].do(task, _now_and_then(report))
        return Outcome(facts, result)
    # Not every exception can be pickled; its text can.
    except Exception:
        return Failure(traceback.format_exc())


def _now_and_then(report: Callable[[Reached], None]) -> Callable[[Reached], None]:
    last = time.monotonic()

    def progress(reached: Reached) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            report(reached)

    return progress
