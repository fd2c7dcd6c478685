"""Workers on this machine: processes with one thread each."""

import dataclasses
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

from keras_lottery.engines.engine import Task
from keras_lottery.search.setup import Setup
from keras_lottery.search.workers.worker import ONE_THREAD, train


class Processes:
    """Workers on this machine.

    The data are written once, and mapped into the memory of every worker.

    Args:
        setup: what they make their engines of.
        count: how many.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        self.count = count
        # Windows removes no file that a worker, which is ending, still has mapped.
        self._folder = tempfile.TemporaryDirectory(
            prefix="keras_lottery-", ignore_cleanup_errors=True
        )
        folder = Path(self._folder.name)
        joblib.dump(setup.data, folder / "data")
        setup = dataclasses.replace(setup, data=None)
        (folder / "setup").write_bytes(cloudpickle.dumps(setup))
        self._load = partial(_load, folder)
        self._executor: loky.ProcessPoolExecutor | None = None

    def submit(self, task: Task | None) -> "Future[Any]":
        """Begins a training; the future raises BrokenProcessPool if its worker dies."""
        arguments = (train, self._folder.name, self._load, task)
        try:
            return self._running().submit(*arguments)
        except BrokenProcessPool:
            self._executor = None
            return self._running().submit(*arguments)

    def _running(self) -> loky.ProcessPoolExecutor:
        if self._executor is None:
            environment = {
                **ONE_THREAD,
                "KERAS_BACKEND": keras.backend.backend(),
                # A worker that grows is made anew: by the size of a network, its data
                # and its compiled programs it may, without being taken for a leak.
                "LOKY_MAX_MEMORY_LEAK_SIZE": "4e9",
            }
            self._executor = loky.ProcessPoolExecutor(
                self.count, env=environment, initializer=_ending_with(os.getpid())
            )
        return self._executor

    def close(self) -> None:
        """Ends all workers, whatever they are doing."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
        self._folder.cleanup()


def _ending_with(parent: int) -> Callable[[], None]:
    """What ends a worker as soon as its parent has ended, in whatever way.

    A function inside of a function is sent by value: the worker watches before it
    imports Keras, which takes seconds in which it would outlive its parent for good.
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
