"""The plan of a search: the user's choices, applied to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras

from keras_lottery.keras_bridge.layers import get_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import repaired_snapshot
from keras_lottery.search.mask_finders import MaskFinder, UntilConverged, choose
from keras_lottery.tickets import Snapshot, grouping
from keras_lottery.tickets.allocation import Allocation
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import Granularity, Grouped, Grouping
from keras_lottery.tickets.repair import Repair
from keras_lottery.tickets.rewind import Rewind, Span
from keras_lottery.tickets.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The arguments of `LotteryTicketSearch`, with names replaced by functions.

    Args:
        schedule, criterion, allocation, granularity, rewind, repair, report_levels,
            seed, prune_at_init: same as in `LotteryTicketSearch`.
        controls: one (name, control, trial) for each training of a control.
    """

    schedule: Schedule
    criterion: Criterion
    allocation: Allocation
    granularity: Granularity
    rewind: Rewind
    repair: Repair | None
    report_levels: Sequence[int]
    seed: int
    controls: Sequence[tuple[str, Control, int]]
    prune_at_init: bool

    def plan(
        self, model: keras.Model, span: Span, find: int | str | None, validations: int
    ) -> "Plan":
        """The plan that `levels` follows.

        Args:
            model: the masked model.
            span: the stretch of training that tickets repeat.
            find: the length of mask-finding runs, see `mask_finders.steps_to_find`.
            validations: the number of validations in an epoch.

        Raises:
            ValueError: see `mask_finders.choose`.
        """
        how: dict[str, Any] = {
            "criterion": self.criterion,
            "allocation": self.allocation,
            "grouping": grouping.get(self.granularity).of(model, get_masks(model)),
        }
        until_converged = partial(UntilConverged, **how, validations=validations)
        at_init = self.prune_at_init
        return Plan(
            **how,
            schedule=self.schedule,
            rewind=self.rewind,
            repair=self.repair,
            report_levels=self.report_levels,
            seed=self.seed,
            controls=self.controls,
            span=span,
            finder=choose(self.rewind, span, find, at_init, until_converged),
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a search is to do.

    Args:
        schedule, criterion, allocation, rewind, repair, report_levels, seed: those of
            `LotteryTicketSearch`.
        grouping: what is pruned together.
        controls: one (name, control, trial) for each training of a control.
        span: the stretch of training that tickets repeat.
        finder: makes the trainings in which masks are found.
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
        """The snapshot with its masks and the weights that tickets continue from."""
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
