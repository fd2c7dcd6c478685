"""The trainings of a search, each done once: trained and stored, or read."""

import dataclasses
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_lottery.engines import Training, Work
from keras_lottery.files import (
    CorruptedFileError,
    read_record,
    write_atomically,
    write_record,
)
from keras_lottery.masks import Masks
from keras_lottery.search.progress import Progress
from keras_lottery.search.results import tabulate
from keras_lottery.search.store import Store, Unit
from keras_lottery.search.workers import Trainer
from keras_lottery.tickets import Ticket


@dataclass(frozen=True)
class Job:
    """One training of a search.

    Args:
        unit: which one.
        ticket: the ticket to train, or what makes it, which is not called if it was
            trained before.
        seed: seed of the order of the data.
        keep: which states of the training to store.
        may_diverge: whether the search goes on if its loss is not a number.
        stop: ends the training early, as of `Engine.train`.
    """

    unit: Unit
    ticket: Ticket | Callable[[], Ticket]
    seed: int
    keep: Sequence[str] = ()
    may_diverge: bool = False
    stop: Callable[..., bool] | None = None


Levels = Generator[list[Job], list[Training], None]
"""Yields what each level has to train, and is sent the trainings."""


@dataclass
class _Level:
    """A level of a replicate, while it is trained."""

    replicate: Levels
    jobs: list[Job]
    trainings: dict[int, Training] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return len(self.trainings) == len(self.jobs)

    @property
    def in_order(self) -> list[Training]:
        return [self.trainings[place] for place in range(len(self.jobs))]


@dataclass
class Trainings:
    """Trains what is not stored yet.

    Args:
        store: where results are kept.
        engine: how tickets are trained.
        progress: what the user sees.

    Attributes:
        rows: the table of results so far.
    """

    store: Store
    engine: Trainer
    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self, replicates: Iterable[Levels]) -> None:
        """Runs replicates side by side: none waits for a level of another.

        Args:
            replicates: the algorithm, for each.

        Raises:
            FloatingPointError: if a training diverges that may not.
        """
        works: list[Work] = []
        places: list[tuple[_Level, int]] = []
        # What is known of a ticket once it is made; the ticket itself is let go.
        made: dict[int, dict[str, Any]] = {}

        def begin(replicate: Levels, sent: list[Training] | None) -> None:
            """Queues what the next level has to train."""
            try:
                level = _Level(replicate, replicate.send(sent))  # type: ignore[arg-type]
            except StopIteration:
                return
            for place, job in enumerate(level.jobs):
                if (training := self._stored(job)) is not None:
                    level.trainings[place] = training
                    continue
                ticket = _noting(job.ticket, made, len(works))
                works.append(Work(ticket, job.seed, job.stop))
                places.append((level, place))
            if level.is_done:
                end(level)

        def end(level: _Level) -> None:
            self._tabulate()
            begin(level.replicate, level.in_order)

        def show(index: int, step: int) -> None:
            level, place = places[index]
            unit = level.jobs[place].unit
            name = f"replicate {unit.replicate}, level {unit.level}: {unit.variant}"
            self.progress.show(name, step)

        for replicate in replicates:
            begin(replicate, None)
        for index, result in self.engine.train_all(works, show):
            level, place = places[index]
            job = level.jobs[place]
            if isinstance(result, FloatingPointError):
                result = _diverged(job, result)
            self._finish(self._write(job, made.pop(index), result))
            if not job.keep:
                # Nothing is found in it: its states need no memory.
                result = dataclasses.replace(result, final={}, rewind_point={})
            level.trainings[place] = result
            if level.is_done:
                end(level)

    def _stored(self, job: Job) -> Training | None:
        try:
            training, meta, _ = read_training(self.store.training(job.unit))
        except FileNotFoundError:
            return None
        except CorruptedFileError as error:
            warnings.warn(f"{error}. This training is done again.", stacklevel=2)
            return None
        self._finish(meta)
        return training

    def _finish(self, meta: dict[str, Any]) -> None:
        self.rows.append(row(meta))
        self.progress.finish()

    def _tabulate(self) -> None:
        rows = [r for r in self.rows if r["variant"] != "trunk"]
        table = tabulate(rows, self.engine.objective)
        write_atomically(
            self.store.results, lambda file: table.to_csv(file, index=False)
        )

    def _write(
        self, job: Job, ticket: dict[str, Any], training: Training
    ) -> dict[str, Any]:
        meta = {
            "kind": "training",
            **job.unit._asdict(),
            "step": ticket["step"],
            "steps": ticket["steps"],
            "learning_rate": ticket["learning_rate"],
            "sparsity": ticket["sparsity"],
            "metrics": training.metrics,
            "curve": training.curve,
        }
        states = {name: getattr(training, name) for name in job.keep}
        masks = (
            job.ticket.masks if job.keep and isinstance(job.ticket, Ticket) else None
        )
        write_record(self.store.training(job.unit), meta, states, masks)
        return meta


def _noting(
    ticket: Ticket | Callable[[], Ticket], made: dict[int, dict[str, Any]], index: int
) -> Callable[[], Ticket]:
    def make() -> Ticket:
        result = ticket if isinstance(ticket, Ticket) else ticket()
        made[index] = {
            "step": result.step,
            "steps": result.steps,
            "learning_rate": result.learning_rate,
            "sparsity": result.masks.sparsity,
        }
        return result

    return make


def _diverged(job: Job, error: FloatingPointError) -> Training:
    message = f"In the training of {job.unit}: {error}"
    if not job.may_diverge:
        raise FloatingPointError(message) from error
    warnings.warn(f"{message} Its results are NaN.", stacklevel=4)
    return Training({}, {}, {}, {})


def row(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A training's row in the table of results; NaN for what it did not come to."""
    derived = {"density": 1 - meta["sparsity"], "start_step": meta["step"]}
    return {**meta, **meta["metrics"], **derived}


def read_training(path: Any) -> tuple[Training, dict[str, Any], Masks | None]:
    """A stored training, what else is known of it, and its masks if they were kept.

    Raises:
        FileNotFoundError: if it was not trained.
        CorruptedFileError: if the file is damaged.
    """
    meta, states, masks = read_record(path, "training")
    training = Training(
        states.get("final", {}),
        states.get("rewind_point", {}),
        meta["curve"],
        meta["metrics"],
    )
    return training, meta, masks
