"""Mask finders: in which training the masks of a level are found.

A mask finder is a function `(ticket, snapshot, sparsity, span) -> MaskTraining`. From
the ticket of a level and the snapshot in which that ticket was found (`None` for the
dense network), it makes the training after which the network is pruned. This may be
the ticket's own training.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.search.converged import Converged
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets.allocation import Allocation
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.criteria import Criterion
from keras_lottery.tickets.grouping import Grouping
from keras_lottery.tickets.rewind import NextTicket, Rewind, Span, from_rewind_point


class MaskTraining(NamedTuple):
    """A training in which masks are found.

    Args:
        ticket: what to train. With no steps, its starting weights are pruned.
        stop: ends the training early, see `Engine.train`.
        own: whether this is the ticket's own training, which is reported as well.
    """

    ticket: Ticket
    stop: Callable[[State], bool] | None = None
    own: bool = False


class MaskFinder(Protocol):
    """Makes the training in which a level's masks are found."""

    def __call__(
        self, ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity, span: Span
    ) -> MaskTraining:
        """The training after which the network is pruned to `sparsity`."""


def own_training(
    ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity, span: Span
) -> MaskTraining:
    """Finds the next masks in each ticket's own training."""
    return MaskTraining(ticket, own=True)


def initial_weights(
    ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity, span: Span
) -> MaskTraining:
    """Finds the masks of each level in the untrained dense network."""
    dense = Masks.dense({name: mask.shape for name, mask in ticket.masks.items()})
    return MaskTraining(dataclasses.replace(ticket, masks=dense, steps=0))


@dataclass(frozen=True)
class Beside:
    """Finds masks in a second run of training that goes on beside the tickets' own.

    Args:
        start: where this run starts from after each pruning. Its first part is the
            training of the dense network.
    """

    start: NextTicket

    def __call__(
        self, ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity, span: Span
    ) -> MaskTraining:
        if snapshot is None:
            return MaskTraining(ticket, own=True)
        return MaskTraining(self.start(snapshot, ticket.masks, span))


@dataclass(frozen=True)
class Shorter:
    """Shortens another finder's trainings, counted from the rewind point.

    Args:
        finder: the other finder.
        steps: the number of steps.
    """

    finder: MaskFinder
    steps: int

    def __call__(
        self, ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity, span: Span
    ) -> MaskTraining:
        found = self.finder(ticket, snapshot, sparsity, span).ticket
        before = max(0, span.rewind_step - found.step)
        steps = min(found.steps, before + self.steps)
        return MaskTraining(dataclasses.replace(found, steps=steps))


@dataclass(frozen=True, kw_only=True)
class UntilConverged:
    """Ends another finder's trainings as soon as the masks have converged.

    Args:
        finder: the other finder.
        criterion, allocation, grouping: how the masks are found.
        validations: the number of validations in an epoch.
    """

    finder: MaskFinder
    criterion: Criterion
    allocation: Allocation
    grouping: Grouping
    validations: int

    def __call__(
        self, ticket: Ticket, snapshot: Snapshot | None, sparsity: Sparsity, span: Span
    ) -> MaskTraining:
        found = self.finder(ticket, snapshot, sparsity, span).ticket
        converged = Converged(
            masks=found.masks,
            initial=snapshot.initial if snapshot else ticket.weights,
            rewind_point=snapshot.rewind_point if snapshot else ticket.weights,
            sparsity=sparsity,
            criterion=self.criterion,
            allocation=self.allocation,
            grouping=self.grouping,
            validations=self.validations,
        )
        if snapshot is None:
            # A criterion that cannot be used during training says so beforehand.
            self.criterion(converged.snapshot(ticket.weights))
        return MaskTraining(found, converged)


def steps_to_find(
    rewind: Rewind,
    span: Span,
    steps_per_epoch: int,
    mask_epochs: float | str | None,
    mask_steps: int | None,
) -> int | str | None:
    """The length of mask-finding runs: steps, `"auto"`, or `None` for full length.

    Raises:
        ValueError: if `mask_epochs` and `mask_steps` do not fit the search.
    """
    if mask_epochs is None and mask_steps is None:
        return None
    if mask_epochs is not None and not isinstance(mask_epochs, str):
        checks.number("mask_epochs", mask_epochs, above=0)
    if mask_steps is not None:
        checks.count("mask_steps", mask_steps, 1)
    longest = span.steps - span.rewind_step
    received = f"Received: mask_epochs={mask_epochs!r}, mask_steps={mask_steps!r}"
    if rewind.ticket is not from_rewind_point:
        raise ValueError(
            "Trainings that only find masks leave tickets without trained weights to "
            "start from: they need rewind='weights' or rewind='continue'. "
            f"{received}, rewind={rewind!r}"
        )
    if mask_epochs == "auto" and mask_steps is None:
        return "auto"
    if isinstance(mask_epochs, str) or (mask_epochs and mask_steps):
        raise ValueError(
            "Expected how long to train for the masks: `mask_epochs`, 'auto' or a "
            f"number of epochs, or `mask_steps`. {received}"
        )
    steps = mask_steps or round((mask_epochs or 0) * steps_per_epoch)
    if not 0 < steps < longest:
        raise ValueError(
            "Expected the trainings that find masks to be at least 1 step and shorter "
            f"than the tickets' {longest} steps. {received}, {steps} steps"
        )
    return steps


def choose(
    rewind: Rewind,
    span: Span,
    steps: int | str | None,
    prune_at_init: bool,
    until_converged: Callable[..., UntilConverged],
) -> MaskFinder:
    """The mask finder for the arguments of a search.

    Args:
        rewind, span, prune_at_init: those of the search.
        steps: the value that `steps_to_find` returned.
        until_converged: ends the trainings of a finder early.

    Raises:
        ValueError: if tickets found at initialisation would start from other weights.
    """
    finder: MaskFinder = Beside(rewind.finder) if rewind.finder else own_training
    k = span.rewind_step
    if prune_at_init:
        other = rewind.finder or rewind.ticket is not from_rewind_point
        if k or steps or other:
            raise ValueError(
                "prune_at_init=True finds tickets before any training: it needs "
                "rewind='weights', rewind_to=0, and neither `mask_epochs` nor "
                f"`mask_steps`. Received: rewind={rewind!r}, the rewind point {k}"
                f"{', trainings that find masks' if steps else ''}"
            )
        return initial_weights
    if steps == "auto":
        return until_converged(finder=finder)
    return Shorter(finder, int(steps)) if steps else finder
