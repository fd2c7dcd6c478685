"""The plan of a search: the user's choices, applied to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

import keras

from keras_lottery.keras_bridge.layers import get_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import chosen, repaired_snapshot, repairer
from keras_lottery.search.mask_finders import MaskFinder, UntilConverged, choose
from keras_lottery.tickets import Snapshot, controls, grouping
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.tickets.allocation import Allocation
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import Granularity, Grouped, Grouping
from keras_lottery.tickets.repair import Repair
from keras_lottery.tickets.rewind import Rewind, Span
from keras_lottery.tickets.schedules import Schedule

if TYPE_CHECKING:
    from keras_lottery.search.search import LotteryTicketSearch


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

    @classmethod
    def of(cls, search: "LotteryTicketSearch") -> Self:
        """The choices that the arguments of a search stand for.

        Raises:
            ValueError: if a name is unknown, or a control's name or number of trials is
                refused.
        """
        criterion, allocation = chosen(
            search.criterion, search.allocation, search.granularity
        )
        repair = search.repair
        return cls(
            schedule=search.schedule,
            criterion=criterion,
            allocation=allocation,
            granularity=search.granularity,
            rewind=rewinds.get(search.rewind),
            repair=None if repair is None else repairer(repair, criterion),
            report_levels=search.report_levels,
            seed=search.seed,
            controls=controls.resolve(search.controls),
            prune_at_init=search.prune_at_init,
        )


@dataclass(frozen=True, kw_only=True)
class Plan(Choices):
    """What a search is to do: its choices, applied to a model.

    Args:
        grouping: what is pruned together.
        span: the stretch of training that tickets repeat.
        finder: makes the trainings in which masks are found.
    """

    grouping: Grouping
    span: Span
    finder: MaskFinder

    @classmethod
    def for_model(
        cls,
        choices: Choices,
        model: keras.Model,
        span: Span,
        find: int | str | None,
        validations: int,
    ) -> Self:
        """The plan for a model, which `levels` follows.

        Args:
            choices: the arguments of the search.
            model: the masked model.
            span: the stretch of training that tickets repeat.
            find: the length of mask-finding runs, see `mask_finders.steps_to_find`.
            validations: the number of validations in an epoch.

        Raises:
            ValueError: see `mask_finders.choose`.
        """
        groups = grouping.get(choices.granularity).of(model, get_masks(model))
        until_converged = partial(
            UntilConverged,
            criterion=choices.criterion,
            allocation=choices.allocation,
            grouping=groups,
            validations=validations,
        )
        at_init = choices.prune_at_init
        finder = choose(choices.rewind, span, find, at_init, until_converged)
        return cls(**vars(choices), grouping=groups, span=span, finder=finder)

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
