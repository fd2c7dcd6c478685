"""Opens a store and prepares an engine, for everything that trains many networks.

A search, a transfer and the papers' experiments enter `at_work`, write their settings
to the store, and hand their tasks to the `Trainings` that they receive.
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
    """A place to train: a store, this process's share of it, and what trains.

    Args:
        settling: a lock on the settings. Close it once they are stored: until then, no
            other process changes them.
        locks: takes the replicates that this process alone trains.
        trainings: runs the tasks.
        setup: describes the engine that was chosen.
        engine: the engine of this process.
        compact: what the user asked for. Its effect depends on the machine, and changes
            results in their last digits only.
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
        """The metric by which trainings are compared."""
        return self.engine.objective

    def train_free(
        self,
        begin: Callable[[int], Levels],
        numbers: Sequence[int],
        unfinished: Callable[[], set[int]],
        *,
        waits: bool,
    ) -> None:
        """Trains the replicates that no other process has, or that others give up.

        No lock is held while this process waits for others, since they may be waiting
        for this one.

        Args:
            begin: gives the levels of a replicate.
            numbers: the replicates.
            unfinished: gives the replicates with missing trainings, in any process.
            waits: whether to wait for replicates that other processes have. Otherwise
                they are left to those processes, and a warning names them.
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
        """The settings to store: all that determines the results of the trainings.

        Args:
            others: further settings, or replacements.
        """
        data, options = self.setup.data, self.setup.options
        assert data is not None
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        return {
            "steps": options.steps,
            "batch_size": data.batch_size,
            "eval_freq": options.eval_freq,
            "model": describe_model(self.engine.model),
            "engine": self.engine.name,
            "compact": self.compact,
            # Each worker has one thread, so their number changes no result.
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
    """Runs trainings in a store, by an engine or by workers.

    Other processes may train in the same store. The first one chooses the engine and
    the workers for all of them.

    Args:
        store: where results are kept.
        setup: what workers build their engines from. If it says `"auto"`, stored
            trainings continue with the engine that they were begun with.
        make: builds the engine of this process from the setup.
        ticket: one of the tickets to train, for timing a step.
        counts: the number of trainings of each level.
        here: how many of them this process is to run; by default, all of them.
        workers, resources: see `workers.employ`.
        checkpoint: see `Trainings`.
        verbose: 0 shows nothing.
        overwrite: whether to ignore what is stored, as it will be removed.

    Raises:
        BlockingIOError: if another process writes settings for ten minutes, or trains
            what is to be overwritten.
        ValueError: if the workers that were asked for are not available, or the store
            holds files that do not belong to a search.
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
        options = dataclasses.replace(setup.options, checkpoint=checkpoint)
        setup = dataclasses.replace(setup, engine=name, options=options)
        engine = make(setup)
        # Whether tickets are made smaller is said once, here, and not by each worker.
        asked = setup.options.compact
        options = dataclasses.replace(options, compact=engine.compact)
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
