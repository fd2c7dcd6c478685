"""Trainings, each done once: trained and stored, or read.

Searches, transfers and the papers' experiments hand their jobs to `Trainings`: so they
resume where they were interrupted, and train in as many processes as there are.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any

from keras_lottery.engines import Engine, Training, Work
from keras_lottery.files import CorruptedFileError, write_atomically
from keras_lottery.search.progress import Progress
from keras_lottery.search.records import Records
from keras_lottery.search.results import tabulate
from keras_lottery.search.settings import check_backend, versions
from keras_lottery.search.setup import Setup
from keras_lottery.search.store import MASK_FINDING, Store, Unit
from keras_lottery.search.workers import Trainer, employ
from keras_lottery.tickets import Ticket


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training to do.

    Args:
        unit: which one.
        ticket: the ticket to train, or what makes it, which is not called if it was
            trained before. One of no steps is not trained.
        seed: seed of the order of the data.
        keep: which states to store: its `"start"`, `"rewind_point"` and `"final"`. With
            them, the masks are stored.
        may_diverge: whether the others go on if its loss is not a number.
        stop, checkpoints: see `Engine.train`; checkpoints are stored.
    """

    unit: Unit
    ticket: Ticket | Callable[[], Ticket]
    seed: int
    keep: Sequence[str] = ()
    may_diverge: bool = False
    stop: Callable[..., bool] | None = None
    checkpoints: Sequence[int] = ()

    @property
    def has_steps(self) -> bool:
        """Whether there is anything to train."""
        return not isinstance(self.ticket, Ticket) or self.ticket.steps > 0

    def untrained(self) -> Training:
        """What a training of no steps gives: its start."""
        assert isinstance(self.ticket, Ticket)
        return Training(self.ticket.weights, self.ticket.weights, {}, {})


Course = Generator[Iterable[Job], Mapping[Unit, Training], None]
"""Yields the trainings of a level, and is sent what they gave; one that is named twice
is done once."""


def advance(
    course: Course, trained: Mapping[Unit, Training] | None
) -> dict[Unit, Job] | None:
    """The jobs of the next level, made of what the last one gave; `None` at the end."""
    try:
        jobs = next(course) if trained is None else course.send(trained)
        return {job.unit: job for job in jobs}
    except StopIteration:
        return None


@dataclass
class _Level:
    """A level, while it is trained, and the course that goes on after it."""

    course: Course
    jobs: dict[Unit, Job]
    trained: dict[Unit, Training] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return len(self.trained) == len(self.jobs)


@dataclass
class _Queued:
    """A job that waits for the engine, and its ticket while it is trained."""

    level: _Level
    job: Job
    ticket: Ticket | None = None

    def make(self) -> Ticket:
        """The ticket, made when it is to be trained."""
        given = self.job.ticket
        self.ticket = given if isinstance(given, Ticket) else given()
        return self.ticket

    def pop(self) -> Ticket:
        """The ticket that was trained, which needs no more memory here."""
        ticket, self.ticket = self.ticket, None
        assert ticket is not None
        return ticket


@dataclass
class Trainings:
    """Trains what is not stored yet.

    Args:
        records: where results are kept.
        engine: how tickets are trained.
        progress: what the user sees.

    Attributes:
        rows: the table of results so far.
    """

    records: Records
    engine: Trainer
    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, courses: Iterable[Course]) -> None:
        """Runs courses side by side: none waits for a level of another.

        Args:
            courses: `levels` of each replicate, for example.

        Raises:
            FloatingPointError: if a training diverges that may not.
        """
        queue: list[_Queued] = []
        works: list[Work] = []  # The engine's: it grows while it is trained.

        def proceed(course: Course, trained: Mapping[Unit, Training] | None) -> None:
            """Queues the next level that has something to train."""
            while (jobs := advance(course, trained)) is not None:
                level = _Level(course, jobs)
                for unit, job in jobs.items():
                    if (known := self._known(job)) is not None:
                        level.trained[unit] = known
                        continue
                    queue.append(_Queued(level, job))
                    how = job.seed, job.stop, job.checkpoints
                    works.append(Work(queue[-1].make, *how))
                if not level.is_done:
                    return
                self._tabulate()
                trained = level.trained

        def show(index: int, step: int) -> None:
            unit = queue[index].job.unit
            name = f"replicate {unit.replicate}, level {unit.level}: {unit.variant}"
            self.progress.show(name, step)

        for course in courses:
            proceed(course, None)
        for index, result in self.engine.train_all(works, show):
            level, job = queue[index].level, queue[index].job
            if isinstance(result, FloatingPointError):
                result = _diverged(job, result)
            self._finish(self._write(job, queue[index].pop(), result))
            if not job.keep:
                # Nothing is found in it: its states need no memory.
                result = dataclasses.replace(result, final={}, rewind_point={})
            level.trained[job.unit] = result
            if level.is_done:
                self._tabulate()
                proceed(level.course, level.trained)

    def train(self, jobs: Iterable[Job]) -> Mapping[Unit, Training]:
        """Trains jobs that do not depend on one another.

        Returns:
            What each training gave.

        Errors are those of `run`.
        """
        trained: dict[Unit, Training] = {}

        def level() -> Course:
            trained.update((yield jobs))

        self.run([level()])
        return trained

    def _known(self, job: Job) -> Training | None:
        """What was trained before, or needs no training."""
        if not job.has_steps:
            return job.untrained()
        checkpoints = {step: f"step_{step}" for step in job.checkpoints}
        wanted = {*job.keep, *checkpoints.values()} - {"start"}
        try:
            meta, states, _ = self.records.training(job.unit, *wanted)
        except FileNotFoundError:
            return None
        except CorruptedFileError as error:
            warnings.warn(f"{error}. This training is done again.", stacklevel=2)
            return None
        check_backend(meta["versions"], versions(), self.records.store.directory)
        self._finish(meta)
        final, rewind_point = (states.get(n, {}) for n in ("final", "rewind_point"))
        passed = {step: states[name] for step, name in checkpoints.items()}
        return Training(final, rewind_point, meta["curve"], meta["metrics"], passed)

    def _finish(self, meta: dict[str, Any]) -> None:
        self.rows.append(row(meta))
        self.progress.finish()

    def _tabulate(self) -> None:
        rows = [r for r in self.rows if r["variant"] != MASK_FINDING]
        table = tabulate(rows, self.engine.objective)
        write_atomically(
            self.records.store.results, lambda file: table.to_csv(file, index=False)
        )

    def _write(self, job: Job, ticket: Ticket, training: Training) -> dict[str, Any]:
        meta = {
            "kind": "training",
            **job.unit._asdict(),
            "step": ticket.step,
            "steps": ticket.steps,
            "learning_rate": ticket.learning_rate,
            "sparsity": ticket.masks.sparsity,
            "metrics": training.metrics,
            "curve": training.curve,
            "versions": versions(),
        }
        states = {
            "start": ticket.weights,
            "rewind_point": training.rewind_point,
            "final": training.final,
        }
        kept = {name: states[name] for name in job.keep}
        kept |= {f"step_{step}": s for step, s in training.checkpoints.items()}
        masks = ticket.masks if job.keep else None
        self.records.write(self.records.store.training(job.unit), meta, kept, masks)
        return meta


@contextlib.contextmanager
def at_work(
    store: Store,
    engine: Engine,
    setup: Setup,
    ticket: Ticket,
    counts: Sequence[int],
    workers: int | str,
    verbose: int,
) -> Iterator[Trainings]:
    """Trainings in a store, with no others in it, by an engine or by workers.

    Args:
        store: where results are kept.
        engine, setup, ticket, workers: see `workers.employ`.
        counts: how many trainings there are, level by level.
        verbose: 0 shows nothing.

    Raises:
        BlockingIOError: if others train in this store.
        ValueError: if workers were asked for and cannot be had, or the store holds
            files that are somebody else's.
    """
    store.check_own()
    total = sum(counts)
    hired = employ(workers, engine, setup, ticket, max(counts), total * ticket.steps)
    with store.alone(), hired as trainer, Progress(total, verbose) as progress:
        yield Trainings(Records(store), trainer, progress)


def _diverged(job: Job, error: FloatingPointError) -> Training:
    message = f"In the training of {job.unit}: {error}"
    if not job.may_diverge:
        raise FloatingPointError(message) from error
    warnings.warn(f"{message} Its results are NaN.", stacklevel=4)
    return Training({}, {}, {}, {})


def row(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A training's row in the table of results.

    Numbers that a training which diverged does not have are NaN.
    """
    derived = {"density": 1 - meta["sparsity"], "start_step": meta["step"]}
    return {**meta["metrics"], **meta, **derived}
