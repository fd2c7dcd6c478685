"""Workers on this machine: processes with one thread each."""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import keras
import loky
import numpy as np

from keras_lottery.engines.record import Reached
from keras_lottery.engines.task import Task
from keras_lottery.search.setup import Setup
from keras_lottery.search.workers.sharing import Sharing, loads
from keras_lottery.search.workers.worker import ONE_THREAD, train


class Processes:
    """Workers on this machine.

    The data and the large arrays of tasks are written to disk once, and mapped into the
    memory of every worker.

    Args:
        setup: what they build their engines from.
        count: the number of workers.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        self.count = count
        # One more than there are workers, so that none has to wait.
        self.most = count + 1
        # Windows removes no file that a worker, which is ending, still has mapped.
        self._folder = tempfile.TemporaryDirectory(
            prefix="keras_lottery-", ignore_cleanup_errors=True
        )
        self._path = Path(self._folder.name)
        joblib.dump(setup.data, self._path / "data")
        setup = dataclasses.replace(setup, data=None)
        (self._path / "setup").write_bytes(cloudpickle.dumps(setup))
        self._load = partial(_load, self._path)
        self._executor: loky.ProcessPoolExecutor | None = None
        self._sharing = Sharing(self._put, _drop)
        self._numbers = itertools.count()
        self._running: dict[Task, Path] = {}

    def submit(self, task: Task | None) -> "Future[Any]":
        """Begins a training; the future raises BrokenProcessPool if its worker dies."""
        number = next(self._numbers)
        read = partial(_read, *self._sharing.dumps(task))
        path = self._path / f"reached_{number}"
        arguments = train, self._folder.name, self._load, read, partial(_report, path)
        try:
            future = self._running_executor().submit(*arguments)
        except BrokenProcessPool:
            self._executor = None
            future = self._running_executor().submit(*arguments)
        if task is not None:
            self._running[task] = path
            future.add_done_callback(lambda _: self._ended(task, path))
        return future

    def look(self) -> dict[Task, Reached]:
        """The progress of the tasks that are being trained."""
        found = {}
        for task, path in list(self._running.items()):
            with contextlib.suppress(OSError, ValueError):
                found[task] = Reached(*json.loads(path.read_bytes()))
        return found

    def _ended(self, task: Task, path: Path) -> None:
        self._running.pop(task, None)
        path.unlink(missing_ok=True)

    def _put(self, array: np.ndarray) -> Path:
        path = self._path / f"array_{next(self._numbers)}.npy"
        np.save(path, array)
        return path

    def _running_executor(self) -> loky.ProcessPoolExecutor:
        if self._executor is None:
            environment = {
                **ONE_THREAD,
                "KERAS_BACKEND": keras.backend.backend(),
                # A worker that grows is replaced. It may grow by the size of a network,
                # its data and its compiled programs without being taken for a leak.
                "LOKY_MAX_MEMORY_LEAK_SIZE": "4e9",
            }
            self._executor = loky.ProcessPoolExecutor(
                self.count, env=environment, initializer=_ending_with(os.getpid())
            )
        return self._executor

    def close(self) -> None:
        """Ends all workers at once, even while they train."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
        self._folder.cleanup()


def _ending_with(parent: int) -> Callable[[], None]:
    """A function that ends a worker as soon as its parent has ended for any reason.

    A nested function is pickled by value, so the worker watches its parent before it
    imports Keras. That takes seconds, in which it could otherwise lose its parent and
    run on for ever.
    """

    def watch_parent() -> None:
        import os
        import threading
        import time

        import psutil

        def watch() -> None:
            # On Windows, the number stays that of a parent that has ended.
            while os.getppid() == parent and psutil.pid_exists(parent):
                time.sleep(0.2)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()

    return watch_parent


def _load(folder: Path) -> Setup:
    setup = cloudpickle.loads((folder / "setup").read_bytes())
    return dataclasses.replace(setup, data=joblib.load(folder / "data", mmap_mode="r"))


def _read(pickled: bytes, paths: list[Path]) -> Any:
    arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
    return loads(pickled, arrays)


def _report(path: Path, reached: Reached) -> None:
    # Progress is no reason to end a training.
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(reached), "ascii")


def _drop(path: Path) -> None:
    # Where a worker has it mapped, Windows removes it with the folder alone.
    with contextlib.suppress(OSError):
        path.unlink()
