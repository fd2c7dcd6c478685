"""Many trainings at once, in processes of their own.

A small network does not keep several threads busy: two processes with one thread each
train half as much again as one process with two.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import keras

from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Done, Engine, Task
from keras_lottery.engines.objective import Objective
from keras_lottery.search.workers.worker import Failure

MAX_DEATHS = 3
"""So often may the worker of a training die before the search gives up."""


class Pool(Protocol):
    """Where trainings run."""

    count: int

    def submit(self, task: Task | None) -> "Future[Any]":
        """Begins a training, or only makes an engine, in a worker.

        The future gives what `worker.train` returns, and raises BrokenProcessPool if
        its worker dies.
        """

    def close(self) -> None:
        """Ends all workers, whatever they are doing."""


class Trainer(Protocol):
    """What trains tickets: an engine, or workers that have one each."""

    model: keras.Model
    data: Data
    objective: Objective

    def train_all(
        self, waiting: list[Task], progress: Callable[[Task, int], None]
    ) -> Iterator[Done]:
        """See `Engine.train_all`."""


class Workers:
    """Trains in a pool.

    Args:
        engine: of this process, which prunes and makes the tickets.
        pool: where tickets are trained.
    """

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self.model = engine.model
        self.data = engine.data
        self.objective = engine.objective
        self.pool = pool

    def train_all(
        self, waiting: list[Task], progress: Callable[[Task, int], None]
    ) -> Iterator[Done]:
        """Trains them all, see `Engine.train_all`.

        Raises:
            RuntimeError: if the worker of a training dies again and again.
        """
        lost: list[Task] = []
        running: dict[Future[Any], Task] = {}
        # Of each training: a pool that breaks once takes all that run with it.
        deaths: Counter[Task] = Counter()
        while waiting or lost or running:
            # One more than there are workers, so that none waits for the next.
            while (lost or waiting) and len(running) <= self.pool.count:
                task = lost.pop() if lost else waiting.pop(0)
                running[self.pool.submit(task)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    deaths[task] += 1
                    lost.append(task)
                    continue
                if isinstance(result, Failure):
                    raise RuntimeError(f"A worker failed:\n{result.traceback}")
                progress(task, result.facts.steps)
                yield result._replace(task=task)
            if lost:
                most = max(deaths[task] for task in lost)
                if most > MAX_DEATHS:
                    raise RuntimeError(
                        f"The worker of a training died {most} times. Is there memory "
                        f"for {self.pool.count}? Choose fewer `workers`."
                    )
                warnings.warn(
                    f"A worker died: {len(lost)} trainings are done again.",
                    stacklevel=2,
                )
