"""The way from a store and an engine's setup to trainings: one for all who train.

A search, a transfer and the papers' experiments enter `at_work`, note their settings
in the store, and hand their tasks to the `Trainings` that they get.
"""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_lottery.engines import Engine
from keras_lottery.engines.compacted import Compact
from keras_lottery.engines.objective import Objective
from keras_lottery.search.locks import Locks
from keras_lottery.search.progress import Progress
from keras_lottery.search.records import Records
from keras_lottery.search.settings import describe_data, describe_model, versions
from keras_lottery.search.setup import Setup
from keras_lottery.search.store import Store
from keras_lottery.search.tasks import Levels
from keras_lottery.search.trainings import Trainings
from keras_lottery.search.workers import as_before, employ
from keras_lottery.tickets import Ticket

LOOK = 2.0
"""Seconds from one look at what other processes have to the next."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where trainings are done: a store, what this process has of it, and what trains.

    Args:
        settling: nobody else changes the settings until it is closed, which is once
            they are stored.
        locks: takes the replicates that this process alone trains.
        trainings: does them.
        setup: of the engine that was chosen.
        engine: of this process.
        compact: what was asked for: what comes of it depends on the machine, and
            changes no result but in its last digits.
    """

    settling: contextlib.ExitStack
    locks: Locks
    trainings: Trainings
    setup: Setup
    engine: Engine
    compact: Compact

    @property
    def records(self) -> Records:
        """The records of the store."""
        return self.trainings.records

    @property
    def objective(self) -> Objective:
        """What the trainings are compared by."""
        return self.engine.objective

    def train_free(
        self,
        begin: Callable[[int], Levels],
        numbers: Sequence[int],
        unfinished: Callable[[], set[int]],
        *,
        waits: bool,
    ) -> None:
        """Trains the replicates that no other process has, and what others give back.

        Nothing is held while others are waited for: they may wait for this process.

        Args:
            begin: the levels of a replicate.
            numbers: the replicates.
            unfinished: those of which trainings are missing, whoever does them.
            waits: whether what others have is waited for, or left to them; a warning
                says who has it.
        """
        done: set[int] = set()

        def run(left: Sequence[int]) -> None:
            self.trainings.run(begin(n) for n in left if self.locks.take(n))
            done.update(self.locks.held)
            self.locks.close()

        run(numbers)
        said: list[int] = []
        while left := sorted((unfinished() & set(numbers)) - done):
            if any(map(self.locks.take, left)):
                run(left)
                continue
            if left != said:
                directory = self.records.store.directory
                others = f"'{directory}': {self.locks.explain(left)}."
                then = "This search waits." if waits else "It is left to them."
                warnings.warn(f"{others} {then}", stacklevel=3)
                said = left
            if not waits:
                return
            time.sleep(LOOK)

    def settings(self, **others: Any) -> dict[str, Any]:
        """What makes trainings the same, wherever they are done: to be stored.

        Args:
            others: further settings, or in the place of some.
        """
        data, options = self.setup.data, self.setup.options
        assert data is not None
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        return {
            "steps": options["steps"],
            "batch_size": data.batch_size,
            "eval_freq": options["eval_freq"],
            "model": describe_model(self.engine.model),
            "engine": self.engine.name,
            "compact": self.compact,
            # Workers have one thread each: their number changes nothing.
            "in_workers": self.trainings.trainer is not self.engine,
            **{n: describe_data(part) for n, part in parts.items() if n not in others},
            "versions": versions(),
            **others,
        }


@contextlib.contextmanager
def at_work(
    store: Store,
    setup: Setup,
    make: Callable[[Setup], Engine],
    *,
    ticket: Ticket,
    counts: Sequence[int],
    here: int | None = None,
    workers: int | str,
    resources: Mapping[str, Any] | None = None,
    checkpoint: int = 0,
    verbose: int,
    overwrite: bool = False,
) -> Iterator[Site]:
    """Trainings in a store, by an engine or by workers.

    Others may train in it, too. The first process that comes chooses engine and workers
    for all.

    Args:
        store: where results are kept.
        setup: what workers make their engines of. Trainings that are stored go on by
            the engine that they were begun with, where it says `"auto"`.
        make: makes the engine of this process of it.
        ticket: one of those to train, to see how long a step takes.
        counts: how many trainings there are, level by level.
        here: how many of them this process is to do; all by default.
        workers, resources: see `workers.employ`.
        checkpoint: see `Trainings`.
        verbose: 0 shows nothing.
        overwrite: whether what is stored does not matter, as it will be removed.

    Raises:
        BlockingIOError: if another process writes settings for ten minutes, or trains
            what is to be overwritten.
        ValueError: if workers were asked for and cannot be had, or the store holds
            files that are somebody else's.
    """
    store.check_own()

    name = setup.engine
    with contextlib.ExitStack() as stack:
        locks = stack.enter_context(contextlib.closing(Locks(store)))
        settling = stack.enter_context(contextlib.ExitStack())
        is_first = overwrite or not store.settings.exists()
        if is_first:
            settling.enter_context(store.alone())
        if overwrite:
            locks.take_all(store.locked_before())
        elif not is_first or store.settings.exists():
            settling.close()  # Another process was first.
            is_first = False
            name, workers = as_before(store, name, workers)
        options = setup.options | {"checkpoint": checkpoint}
        setup = dataclasses.replace(setup, engine=name, options=options)
        engine = make(setup)
        # Whether tickets are made smaller is said once, here, and not by each worker.
        asked = setup.options.get("compact", False)
        options = setup.options | {"compact": engine.compact}
        setup = dataclasses.replace(setup, engine=engine.name, options=options)
        total = sum(counts)
        many = max(counts), total * ticket.steps
        hired = employ(workers, engine, setup, ticket, *many, resources, verbose)
        trainer = stack.enter_context(hired)
        mine = total if here is None else here
        progress = stack.enter_context(Progress(mine, verbose))
        if not is_first:
            settling.enter_context(store.alone())
        yield Site(
            settling=settling,
            locks=locks,
            trainings=Trainings(Records(store), trainer, progress, checkpoint),
            setup=setup,
            engine=engine,
            compact=asked,
        )
