"""Trains many networks at once, in separate processes.

A small network does not keep several threads busy: two processes with one thread each
get half as much again done as one process with two threads.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import keras

from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.objective import Objective
from keras_lottery.engines.record import Reached
from keras_lottery.engines.task import Done, Task
from keras_lottery.search.workers.worker import Failure

MAX_DEATHS = 3
"""So often may the worker of a training die before the search gives up."""

LOOK = 1.0
"""Seconds from one look at what is trained to the next."""


class Pool(Protocol):
    """Where trainings run."""

    @property
    def count(self) -> int:
        """How many trainings run at once now."""

    @property
    def most(self) -> int:
        """How many trainings to accept at once: a few wait, so that no worker does."""

    def submit(self, task: Task | None) -> "Future[Any]":
        """Begins a training in a worker; for `None`, it only gets ready for one.

        The future gives what `worker.train` returns. It raises BrokenProcessPool if its
        worker dies and the training may be handed over again, and RuntimeError if it
        may not.
        """

    def look(self) -> dict[Task, Reached]:
        """The progress of the tasks that are being trained; it is called repeatedly.

        Raises:
            RuntimeError: if no more trainings will finish.
        """

    def close(self) -> None:
        """Ends all workers at once, even while they train."""


class Trainer(Protocol):
    """Trains tickets: an engine, or a pool of workers with an engine each."""

    model: keras.Model
    data: Data
    objective: Objective

    @property
    def most(self) -> int:
        """How many trainings to offer it at once, so that it never waits for one."""

    def train_all(
        self, waiting: list[Task], progress: Callable[[Task, Reached], None]
    ) -> Iterator[Done]:
        """See `Engine.train_all`."""


class Workers:
    """Trains in a pool.

    Args:
        engine: the engine of this process, which prunes and makes the tickets.
        pool: where tickets are trained.
        start: is called once, before the first task.
    """

    def __init__(
        self, engine: Engine, pool: Pool, start: Callable[[], None] = lambda: None
    ) -> None:
        self.model = engine.model
        self.data = engine.data
        self.objective = engine.objective
        self.pool = pool
        self._start: Callable[[], None] | None = start

    @property
    def most(self) -> int:
        """Same as `Pool.most`."""
        return self.pool.most

    def train_all(
        self, waiting: list[Task], progress: Callable[[Task, Reached], None]
    ) -> Iterator[Done]:
        """Trains all tasks, see `Engine.train_all`.

        Raises:
            RuntimeError: if the worker of a training dies repeatedly.
            Exception: from `start`.
        """
        if waiting and self._start is not None:
            self._start()
            self._start = None
        lost: list[Task] = []
        running: dict[Future[Any], Task] = {}
        # Counted for each training: a broken pool takes all running ones with it.
        deaths: Counter[Task] = Counter()
        while waiting or lost or running:
            while (lost or waiting) and len(running) < self.pool.most:
                task = lost.pop() if lost else waiting.pop(0)
                running[self.pool.submit(task)] = task
            for future in self._done(running, progress):
                task = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    deaths[task] += 1
                    lost.append(task)
                    continue
                if isinstance(result, Failure):
                    raise RuntimeError(f"A worker failed:\n{result.traceback}")
                yield Done(task, *result)
            if lost:
                self._warn(lost, max(lost, key=deaths.__getitem__), deaths)

    def _done(
        self,
        running: dict[Future[Any], Task],
        progress: Callable[[Task, Reached], None],
    ) -> set[Future[Any]]:
        """Waits for tasks to be done; shows the progress of the others."""
        while True:
            done, _ = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
            for task, reached in self.pool.look().items():
                progress(task, reached)
            if done:
                return done

    def _warn(self, lost: list[Task], worst: Task, deaths: Counter[Task]) -> None:
        if deaths[worst] > MAX_DEATHS:
            raise RuntimeError(
                f"The worker of the training of {worst} died {deaths[worst]} times. Is "
                f"there memory for {self.pool.count}? Choose fewer `workers`."
            )
        warnings.warn(
            f"A worker died: {len(lost)} trainings are done again.", stacklevel=3
        )
