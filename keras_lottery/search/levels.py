"""The algorithm: train, prune, rewind, repeat; and what is trained beside it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import State, get_masks, set_state
from keras_lottery.masks import Masks
from keras_lottery.pruning import check_informed, prune_snapshot
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.settled import Settled
from keras_lottery.search.store import Unit
from keras_lottery.search.trainings import Job, Levels
from keras_lottery.search.trunk import Trunk
from keras_lottery.search.workers import Trainer
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets import controls as control_registry
from keras_lottery.tickets.allocation import Allocation
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import Grouped, Grouping
from keras_lottery.tickets.rewind import Rewind, Span, from_rewind_point
from keras_lottery.tickets.schedules import Schedule

WHOLE = ("rewind_point", "final")


@dataclass(frozen=True)
class Plan:
    """What a search is to do.

    Args:
        grouping: what is pruned together.
        schedule, criterion, allocation, rewind, report_levels, seed: as of
            `LotteryTicketSearch`.
        controls: (name, control, trial) of all.
        span: the stretch of training that tickets repeat.
        trunk: what finds the masks, if not the tickets.
        eval_freq: steps from one validation to the next.
        at_init: whether the initial weights do, each level's masks by themselves.
    """

    schedule: Schedule
    criterion: Criterion
    allocation: Allocation
    grouping: Grouping
    rewind: Rewind
    report_levels: Sequence[int]
    seed: int
    controls: Sequence[tuple[str, Control, int]]
    span: Span
    trunk: Trunk | None
    eval_freq: int
    at_init: bool = False

    def trainings(self, replicates: int) -> int:
        """How many trainings there are."""
        levels, reported = len(self.schedule), len(self.report_levels)
        trunks = levels - 1 + bool(self.trunk.steps) if self.trunk else 0
        tickets = reported if self.trunk or self.at_init else levels
        return replicates * (1 + trunks + tickets + reported * len(self.controls))

    def check(self) -> None:
        """Raises ValueError if tickets found at initialisation start elsewhere."""
        rewind, k = self.rewind, self.span.rewind_step
        if self.at_init and (k or self.trunk or rewind.ticket is not from_rewind_point):
            raise ValueError(
                "prune_at_init=True finds tickets before any training: it needs "
                "rewind='weights', rewind_to=0, and neither `mask_epochs` nor "
                f"`mask_steps`. Received: rewind={rewind!r}, the rewind point {k}"
                f"{', trainings that find masks' if self.trunk else ''}"
            )

    def sparsities(self, masks: Masks) -> list[float]:
        """Of the levels; an allocation with rates of its own has a say in them."""
        if not self.schedule.by_rate:
            return list(self.schedule)
        total = Grouped(self.allocation, self.grouping).total_sparsity
        return [total(sparsity, masks) for sparsity in self.schedule]


def rehearse(plan: Plan, model: keras.Model, initial: State, data: Any) -> None:
    """Prunes to every level, so that what cannot be pruned is known before.

    Args:
        plan: what is to be done.
        model: the masked model; it is left as it is.
        initial: its weights.
        data: training data (x, y), if they are arrays.
    """
    masks = get_masks(model)
    rng = np.random.default_rng(plan.seed)
    # A training would move them: there are criteria that compare.
    moved = {} if plan.at_init else {name: 1.01 * initial[name] for name in masks}
    final = {**initial, **moved}
    snapshot = Snapshot(
        masks, final, initial, initial, rng, model, data, grouping=plan.grouping
    )
    scores = plan.criterion(snapshot)
    if plan.at_init:
        check_informed(plan.criterion, scores)
    if plan.trunk and plan.trunk.settles:
        plan.criterion(dataclasses.replace(snapshot, model=None, data=None))
    allocate = Grouped(plan.allocation, plan.grouping)
    for sparsity in plan.sparsities(masks):
        masks = allocate(scores, masks, sparsity)


def levels(plan: Plan, engine: Trainer, replicate: int, initial: State) -> Levels:
    """The algorithm, for one replicate.

    Yields what each level has to train, all independent, and is sent the trainings. The
    first one of a level finds the masks of the next.
    """
    model, span, trunk = engine.model, plan.span, plan.trunk
    seed = partial(derive_seed, plan.seed, replicate)
    shapes = {name: mask.shape for name, mask in get_masks(model).items()}
    ticket = Ticket(Masks.dense(shapes), initial, 0, span.steps)
    sparsities = plan.sparsities(ticket.masks)

    def job(level: int, variant: str, made: Any, trial: int = 0, **how: Any) -> Job:
        return Job(Unit(replicate, level, variant, trial), made, seed("order"), **how)

    def settled(masks: Masks, level: int, rewind_point: State) -> Settled | None:
        if not (trunk and trunk.settles):
            return None
        sparsity = sparsities[level]
        found = plan.criterion, plan.allocation, plan.grouping
        per_epoch = max(1, engine.data.steps_per_epoch // plan.eval_freq)
        return Settled(masks, initial, rewind_point, sparsity, *found, per_epoch)

    jobs = [job(0, "ticket", ticket, keep=WHOLE)]
    if trunk and trunk.steps:
        stop = settled(ticket.masks, 0, initial)
        first = trunk.first(ticket, span)
        jobs.insert(0, job(0, "trunk", first, keep=WHOLE, stop=stop))
    found = dense = (yield jobs)[0]
    for level, sparsity in enumerate(sparsities, start=1):
        before, state = ticket.masks, found.final
        if plan.at_init:
            before, state = Masks.dense(shapes), initial
        set_state(model, state, before)
        snapshot = Snapshot(
            before,
            state,
            initial,
            dense.rewind_point,
            np.random.default_rng(seed("prune", level)),
            model,
            engine.data.arrays,
            grouping=plan.grouping,
        )
        how = plan.criterion, plan.allocation
        masks, scores = prune_snapshot(snapshot, sparsity, *how)
        ticket = plan.rewind.ticket(snapshot, masks, span)
        jobs = []
        if trunk and level < len(sparsities):
            stop = settled(masks, level, dense.rewind_point)
            finder = trunk.ticket(snapshot, masks, span)
            jobs.append(job(level, "trunk", finder, keep=("final",), stop=stop))
        if level in plan.report_levels or not (trunk or plan.at_init):
            jobs.append(job(level, "ticket", ticket, keep=("final",)))
        if level in plan.report_levels:
            for name, control, trial in plan.controls:
                rng = np.random.default_rng(seed(name, level, trial))
                drawn = dataclasses.replace(snapshot, rng=rng, scores=scores)
                made = partial(control_registry.apply, control, ticket, drawn)
                jobs.append(job(level, name, made, trial, may_diverge=True))
        trained = yield jobs
        if not plan.at_init:
            found = trained[0]
