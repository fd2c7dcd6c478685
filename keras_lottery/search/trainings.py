"""Runs each training once: it trains and stores the result, or reads a stored one.

Searches, transfers and the papers' experiments hand their tasks to `Trainings`. This is
how they resume after an interruption, and train in several processes.
"""

import contextlib
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keras_lottery.engines import Facts, Task, Training
from keras_lottery.engines.checkpoint import Checkpoint
from keras_lottery.engines.record import Reached
from keras_lottery.files import CorruptedFileError, write_atomically
from keras_lottery.search.progress import Progress
from keras_lottery.search.records import Records
from keras_lottery.search.results import tabulate
from keras_lottery.search.settings import check_backend, versions
from keras_lottery.search.store import MASK_FINDING, TrainingId
from keras_lottery.search.tasks import Levels, StoredTask, advance, alone
from keras_lottery.search.workers import Trainer
from keras_lottery.tickets import Ticket

SECONDS = 30.0
"""From one table on the way to the next: others' trainings are looked for each time."""


@dataclass
class Trainings:
    """Runs trainings that are not stored yet, in replicates that this process has.

    Args:
        records: where results are kept.
        trainer: what trains tickets.
        progress: what the user sees.
        checkpoint: the number of steps after which the state of a training is stored
            each time; 0 for never.

    Attributes:
        rows: the rows of the table of results that are there so far.
    """

    records: Records
    trainer: Trainer
    progress: Progress
    checkpoint: int = 0
    rows: dict[TrainingId, dict[str, Any]] = field(default_factory=dict)
    _others: dict[TrainingId, dict[str, Any]] = field(default_factory=dict)
    _tabulated: float = field(default_factory=time.monotonic)

    def run(self, replicates: Iterable[Levels]) -> None:
        """Runs replicates side by side: none waits for a level of another one.

        A replicate begins when there is nothing else to do, so that other processes can
        take those that have not begun.

        A result stays in memory only as long as it is needed: the first training of
        each level until the next level has been made, and the others not at all.

        Args:
            replicates: the levels of each replicate, see `levels.levels`; they are
                requested one by one.

        Raises:
            FloatingPointError: if a training diverges that is not allowed to.
        """
        waiting: list[Task] = []
        needed: dict[Task, Levels] = {}

        def proceed(levels: Levels, training: Training | None) -> None:
            """Goes on to the next level whose first training still has to be done."""
            while tasks := advance(levels, training):
                tasks = list(map(self._interruptible, tasks))
                known = [self._known(task) for task in tasks]
                waiting.extend(
                    task for task, k in zip(tasks, known, strict=True) if k is None
                )
                if (training := known[0]) is None:
                    needed[tasks[0]] = levels
                    return

        going = iter(replicates)

        def fill() -> None:
            """Begins replicates until there is enough to do."""
            while len(waiting) < self.trainer.most:
                if (levels := next(going, None)) is None:
                    return
                proceed(levels, None)

        fill()
        for task, facts, result in self.trainer.train_all(waiting, self._show):
            assert isinstance(task, StoredTask)
            if isinstance(result, FloatingPointError):
                result = _diverged(task, result)
            self._finish(task, self._write(task, facts, result))
            if task in needed:
                proceed(needed.pop(task), result)
            fill()
            if time.monotonic() - self._tabulated > SECONDS:
                with contextlib.suppress(BlockingIOError):
                    self._tabulate(patience=0)
        self._tabulate()

    def train(self, tasks: Iterable[StoredTask]) -> dict[TrainingId, Training]:
        """Runs trainings that do not depend on one another.

        Returns:
            The result of each training.

        Errors are the same as in `run`.
        """
        trained: dict[TrainingId, Training] = {}

        def noting(task: StoredTask) -> Levels:
            trained[task.which] = yield [task]

        self.run(map(noting, tasks))
        return trained

    def train_and_store(self, tasks: Iterable[StoredTask]) -> None:
        """Same as `train`, for callers that only read the table."""
        self.run(map(alone, tasks))

    def _show(self, task: Task, reached: Reached) -> None:
        self.progress.show(str(task), reached)

    def _interruptible(self, task: StoredTask) -> StoredTask:
        """Gives a task a place for its checkpoint, unless `stop` has its own state."""
        if not self.checkpoint or task.stop is not None:
            return task
        path = self.records.store.unfinished(task.which).absolute()
        return replace(task, checkpoint=Checkpoint(path, self.checkpoint))

    def _known(self, task: StoredTask) -> Training | None:
        """The result of a task that was trained before, or that needs no training."""
        if not task.has_steps:
            return task.untrained()
        names = {step: f"step_{step}" for step in task.keep_at}
        wanted = {*task.keep, *names.values()} - {"start"}
        try:
            meta, states, _ = self.records.training(task.which, *wanted)
        except FileNotFoundError:
            return None
        except CorruptedFileError as error:
            warnings.warn(f"{error}. This training is done again.", stacklevel=2)
            return None
        check_backend(meta["versions"], versions(), self.records.store.directory)
        # Left by a process that was killed before it could remove it.
        self.records.store.unfinished(task.which).unlink(missing_ok=True)
        self.rows[task.which] = row(meta)
        self.progress.leave_out()
        final, rewind_point = (states.get(n, {}) for n in ("final", "rewind_point"))
        passed = {step: states[name] for step, name in names.items()}
        return Training(final, rewind_point, meta["curve"], meta["metrics"], passed)

    def _finish(self, task: StoredTask, meta: dict[str, Any]) -> None:
        self.rows[task.which] = row(meta)
        objective, metrics = self.trainer.objective, meta["metrics"]
        gave = "diverged"
        if metrics:
            value = objective.value(metrics[objective.column("early_stop")])
            gave = f"{objective.name} {value}, {metrics['seconds']:.1f} s"
        self.progress.finish(str(task), gave)

    def _tabulate(self, patience: float | None = None) -> None:
        """Writes the table of all that is stored, by any process.

        Args:
            patience: see `Store.alone`.

        Raises:
            BlockingIOError: if another process is still writing then.
        """
        store = self.records.store
        with store.alone(patience):
            for which in store.training_ids():
                if which not in self.rows and which not in self._others:
                    # What is damaged is done again, or named at the end.
                    with contextlib.suppress(CorruptedFileError):
                        self._others[which] = row(self.records.training_meta(which))
            found = {**self._others, **self.rows}
            rows = [r for r in found.values() if r["variant"] != MASK_FINDING]
            table = tabulate(rows, self.trainer.objective)
            write_atomically(
                store.results, lambda file: table.to_csv(file, index=False)
            )
        self._tabulated = time.monotonic()

    def _write(
        self, task: StoredTask, facts: Facts, training: Training
    ) -> dict[str, Any]:
        meta = {
            "kind": "training",
            **task.which._asdict(),
            **facts._asdict(),
            "metrics": training.metrics,
            "curve": training.curve,
            "versions": versions(),
        }
        states = {"rewind_point": training.rewind_point, "final": training.final}
        masks = None
        if task.keep:
            assert isinstance(task.ticket, Ticket)
            states["start"], masks = task.ticket.weights, task.ticket.masks
        kept = {name: states[name] for name in task.keep}
        kept |= {f"step_{step}": s for step, s in training.passed.items()}
        path = self.records.store.training(task.which)
        self.records.write(path, meta, kept, masks)
        if task.checkpoint is not None:
            task.checkpoint.remove()
        return meta


def _diverged(task: StoredTask, error: FloatingPointError) -> Training:
    message = f"In the training of {task.which}: {error}"
    if not task.may_diverge:
        raise FloatingPointError(message) from error
    warnings.warn(f"{message} Its results are NaN.", stacklevel=4)
    return Training({}, {}, {}, {})


def row(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A training's row in the table of results.

    Numbers that do not exist for a training that diverged are NaN.
    """
    derived = {"density": 1 - meta["sparsity"], "start_step": meta["step"]}
    rest = {name: value for name, value in meta.items() if name != "curve"}
    return {**meta["metrics"], **rest, **derived}
