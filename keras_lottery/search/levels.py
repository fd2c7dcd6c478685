"""The algorithm: train, prune, rewind, repeat; and what is trained beside it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.engines import Training
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune_snapshot, repaired_snapshot
from keras_lottery.search.mask_finders import MaskFinder
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.store import MASK_FINDING, Unit
from keras_lottery.search.trainings import Course, Job, advance
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets.allocation import Allocation, Scores
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import Grouped, Grouping
from keras_lottery.tickets.repair import Repair
from keras_lottery.tickets.rewind import Rewind, Span
from keras_lottery.tickets.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a search is to do.

    Args:
        schedule, criterion, allocation, rewind, repair, report_levels, seed: those of
            `LotteryTicketSearch`.
        grouping: what is pruned together.
        controls: one (name, control, trial) for each training of a control.
        span: the stretch of training that tickets repeat.
        finder: makes the trainings that masks are found in.
    """

    schedule: Schedule
    criterion: Criterion
    allocation: Allocation
    grouping: Grouping
    rewind: Rewind
    repair: Repair | None
    report_levels: Sequence[int]
    seed: int
    controls: Sequence[tuple[str, Control, int]]
    span: Span
    finder: MaskFinder

    def repaired(self, snapshot: Snapshot, masks: Masks) -> tuple[Snapshot, Masks]:
        """The snapshot with the weights that tickets go on from, and their masks."""
        if self.repair is None:
            return snapshot, masks
        changed, masks = repaired_snapshot(self.repair, snapshot, masks)
        return replace(snapshot, final={**snapshot.final, **changed}), masks

    def sparsities(self, masks: Masks) -> list[Sparsity]:
        """The sparsity of each level; allocations with rates of their own change it."""
        if not self.schedule.by_rate:
            return list(self.schedule)
        total = Grouped(self.allocation, self.grouping).total_sparsity
        return [
            each if isinstance(each, Mapping) else total(each, masks)
            for each in self.schedule
        ]


def levels(replicate: "Replicate") -> Course:
    """The algorithm, for one replicate.

    Yields what each level has to train, all independent, and is sent the trainings.
    """
    plan, ticket, snapshot = replicate.plan, replicate.dense_ticket(), None
    jobs = [replicate.job(0, "ticket", ticket)]
    for level, sparsity in enumerate(plan.sparsities(ticket.masks), start=1):
        found_in = replicate.mask_job(level - 1, ticket, snapshot, sparsity)
        trained = yield [found_in, *jobs]
        snapshot = replicate.snapshot(level, found_in, trained[found_in.unit], snapshot)
        masks, scores = prune_snapshot(
            snapshot, sparsity, plan.criterion, plan.allocation
        )
        start, masks = plan.repaired(snapshot, masks)
        ticket = plan.rewind.ticket(start, masks, plan.span)
        jobs = replicate.reported(level, ticket, snapshot, scores)
    yield jobs


@dataclass(frozen=True)
class Replicate:
    """What `levels` goes through, once for each seed: its jobs and snapshots.

    Args:
        plan: what the search is to do.
        number: which replicate.
        initial: the weights that it starts from.
        model: the masked model.
        data: what gives the training data (x, y).
    """

    plan: Plan
    number: int
    initial: State
    model: keras.Model
    data: Callable[[], tuple[Any, Any]]

    def seed(self, purpose: str, level: int = 0, trial: int = 0) -> int:
        """A seed of its own for everything that is random."""
        return derive_seed(self.plan.seed, self.number, purpose, level, trial)

    def dense_ticket(self) -> Ticket:
        """All weights, from the beginning."""
        shapes = {name: mask.shape for name, mask in get_masks(self.model).items()}
        return Ticket(Masks.dense(shapes), self.initial, 0, self.plan.span.steps)

    def job(
        self, level: int, variant: str, ticket: Any, trial: int = 0, **how: Any
    ) -> Job:
        """A training of the level. All have their data in the same order."""
        unit = Unit(self.number, level, variant, trial)
        keep = ("start", "final") if level else ("start", "rewind_point", "final")
        how = {"keep": keep, **how}
        return Job(unit=unit, ticket=ticket, seed=self.seed("order"), **how)

    def mask_job(
        self, level: int, ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity
    ) -> Job:
        """The training of a level that the masks of the next one are found in."""
        plan = self.plan
        training = plan.finder(ticket, snapshot, sparsity, plan.span)
        variant = "ticket" if training.own else MASK_FINDING
        return self.job(level, variant, training.ticket, stop=training.stop)

    def snapshot(
        self, level: int, found_in: Job, trained: Training, before: Snapshot | None
    ) -> Snapshot:
        """What is known where the masks of a level are to be found."""
        assert isinstance(found_in.ticket, Ticket)
        return Snapshot(
            found_in.ticket.masks,
            trained.final,
            self.initial,
            before.rewind_point if before else trained.rewind_point,
            np.random.default_rng(self.seed("prune", level)),
            self.model,
            self.data,
            grouping=self.plan.grouping,
        )

    def reported(
        self, level: int, ticket: Ticket, snapshot: Snapshot, scores: Scores
    ) -> list[Job]:
        """The trainings that the level reports: the ticket's and its controls'."""
        if level not in self.plan.report_levels:
            return []
        jobs = [self.job(level, "ticket", ticket)]
        for name, control, trial in self.plan.controls:
            seen = dataclasses.replace(
                snapshot,
                rng=np.random.default_rng(self.seed(name, level, trial)),
                scores=scores,
            )
            made = partial(control, ticket, seen)
            how = {"keep": (), "may_diverge": True}
            jobs.append(self.job(level, name, made, trial, **how))
        return jobs


def count_trainings(replicate: Replicate) -> list[int]:
    """Goes through the levels without training, and counts the trainings of each.

    What cannot be pruned is known before anything is trained.

    Args:
        replicate: the first one.

    Returns:
        For each level, how many trainings it has.
    """
    plan, initial = replicate.plan, replicate.initial
    # A training would move the weights: there are criteria that compare.
    moved = {name: 1.01 * initial[name] for name in get_masks(replicate.model)}
    stand_in = Training({**initial, **moved}, initial, {}, {})
    found: list[Scores] = []

    def score_once(snapshot: Snapshot) -> Scores:
        if not found:
            scores = plan.criterion(snapshot)
            if snapshot.final is stand_in.final:
                # Scores of zeros alone may be due to the stand-in.
                scores = {n: s if np.any(s) else 1 + s for n, s in scores.items()}
            found.append(scores)
        return found[0]

    dry = dataclasses.replace(plan, criterion=Criterion(score_once))
    going = levels(dataclasses.replace(replicate, plan=dry))
    counts = []
    made: set[str] = set()
    jobs = advance(going, None)
    while jobs is not None:
        counts.append(sum(job.has_steps for job in jobs.values()))
        for job in jobs.values():
            if callable(job.ticket) and job.unit.variant not in made:
                # So is what a control cannot do.
                made.add(job.unit.variant)
                job.ticket()
        trained = {
            unit: stand_in if job.has_steps else job.untrained()
            for unit, job in jobs.items()
        }
        jobs = advance(going, trained)
    return counts
