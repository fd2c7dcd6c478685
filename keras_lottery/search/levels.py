"""The algorithm: train, prune, rewind, repeat, and train the controls beside it."""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_lottery.engines import Training
from keras_lottery.engines.data import Examples
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune_snapshot
from keras_lottery.search.plan import Plan
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.store import MASK_FINDING, TrainingId
from keras_lottery.search.tasks import Levels, StoredTask, advance
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import Criterion


def levels(replicate: "Replicate") -> Levels:
    """Runs the algorithm for one replicate.

    Yields the trainings of each level, which are independent of each other, and is sent
    the result of the first one.
    """
    plan, ticket, snapshot = replicate.plan, replicate.dense_ticket(), None
    tasks = [replicate.task(0, "ticket", ticket)]
    for level, sparsity in enumerate(plan.sparsities(ticket.masks), start=1):
        found_in = replicate.mask_task(level - 1, ticket, snapshot, sparsity)
        trained = yield [found_in, *tasks]
        snapshot = replicate.snapshot(level, found_in, trained, snapshot)
        masks, scores = prune_snapshot(
            snapshot, sparsity, plan.criterion, plan.allocation
        )
        start, masks = plan.repaired(snapshot, masks)
        ticket = plan.rewind.ticket(start, masks, plan.span)
        tasks = replicate.reported(level, ticket, snapshot, scores)
    yield tasks


@dataclass(frozen=True)
class Replicate:
    """One run of `levels`, for one seed: it makes the tasks and the snapshots.

    Args:
        plan: what the search is to do.
        number: the number of the replicate.
        initial: the weights that it starts from.
        model: the masked model.
        data: returns the training data (x, y).
    """

    plan: Plan
    number: int
    initial: State
    model: keras.Model
    data: Examples

    def seed(self, purpose: str, level: int = 0, trial: int = 0) -> int:
        """A separate seed for each purpose that needs random numbers."""
        return derive_seed(self.plan.seed, self.number, purpose, level, trial)

    def dense_ticket(self) -> Ticket:
        """The dense network as a ticket: all weights, from step 0."""
        shapes = {name: mask.shape for name, mask in get_masks(self.model).items()}
        return Ticket(Masks.dense(shapes), self.initial, 0, self.plan.span.steps)

    def task(
        self, level: int, variant: str, ticket: Any, trial: int = 0, **how: Any
    ) -> StoredTask:
        """A training of the level. All trainings see their data in the same order."""
        which = TrainingId(self.number, level, variant, trial)
        keep = ("start", "final") if level else ("start", "rewind_point", "final")
        how = {"keep": keep, **how}
        return StoredTask(which=which, ticket=ticket, seed=self.seed("order"), **how)

    def mask_task(
        self, level: int, ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity
    ) -> StoredTask:
        """The training of a level in which the masks of the next level are found."""
        plan = self.plan
        training = plan.finder(ticket, snapshot, sparsity, plan.span)
        variant = "ticket" if training.own else MASK_FINDING
        return self.task(level, variant, training.ticket, stop=training.stop)

    def snapshot(
        self,
        level: int,
        found_in: StoredTask,
        trained: Training,
        before: Snapshot | None,
    ) -> Snapshot:
        """The snapshot in which the masks of a level are found."""
        assert isinstance(found_in.ticket, Ticket)
        rewind_point = (
            before.rewind_point
            if before
            else _not_twice(trained.rewind_point, self.initial)
        )
        return Snapshot(
            found_in.ticket.masks,
            trained.final,
            self.initial,
            rewind_point,
            np.random.default_rng(self.seed("prune", level)),
            self.model,
            self.data,
            grouping=self.plan.grouping,
        )

    def reported(
        self, level: int, ticket: Ticket, snapshot: Snapshot, scores: Scores
    ) -> list[StoredTask]:
        """The trainings that the level reports: the ticket's and its controls'."""
        if level not in self.plan.report_levels:
            return []
        tasks = [self.task(level, "ticket", ticket)]
        for name, control, trial in self.plan.controls:
            rng = np.random.default_rng(self.seed(name, level, trial))
            seen = replace(
                snapshot, rng=rng, scores=scores, shared_model=None, data=None
            )
            made = ControlTicket(control, ticket, seen)
            how = {"keep": (), "may_diverge": True}
            tasks.append(self.task(level, name, made, trial, **how))
        return tasks


def _not_twice(state: State, other: State) -> State:
    """Replaces equal arrays by those of the other state: each is kept and sent once."""
    return {
        name: other[name] if np.array_equal(array, other[name]) else array
        for name, array in state.items()
    }


@dataclass(frozen=True)
class ControlTicket:
    """Makes a control's ticket in the process that trains it.

    Args:
        control: the control.
        ticket: the ticket that it is compared with.
        snapshot: the one that the ticket was found in, without model and data.
    """

    control: Control
    ticket: Ticket
    snapshot: Snapshot

    def __call__(self, model: keras.Model, data: Examples) -> Ticket:
        seen = replace(self.snapshot, shared_model=model, data=data)
        return self.control(self.ticket, seen)


def count_trainings(replicate: Replicate) -> list[int]:
    """Goes through the levels without training, and counts the trainings of each.

    It finds out what cannot be pruned before anything is trained.

    Args:
        replicate: the first one.

    Returns:
        The number of trainings of each level.
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

    within = plan.criterion.within_outputs
    dry = replace(plan, criterion=Criterion(score_once, within_outputs=within))
    going = levels(replace(replicate, plan=dry))
    counts = []
    made: set[str] = set()
    tasks = advance(going, None)
    while tasks:
        counts.append(sum(task.has_steps for task in tasks))
        for task in tasks:
            if task.which.variant not in made:
                # So is what a control cannot do.
                made.add(task.which.variant)
                task.make(replicate.model, replicate.data)
        first = tasks[0]
        trained = stand_in if first.has_steps else first.untrained()
        tasks = advance(going, trained)
    return counts
