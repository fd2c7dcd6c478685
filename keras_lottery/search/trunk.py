"""The trainings that find masks, where they are others than the tickets' own."""

import dataclasses
from dataclasses import dataclass

from keras_lottery.masks import Masks
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets.rewind import Rewind, Span, Start, from_rewind_point


@dataclass(frozen=True)
class Trunk:
    """What finds the masks of each level.

    Args:
        start: makes the ticket to train, of the level before.
        steps: ends each training after so many steps, counted from the rewind point;
            `None` trains as long as `start` says, and finds the first masks in the
            dense network's own training.
        settles: whether each ends once its masks have settled.
    """

    start: Start
    steps: int | None = None
    settles: bool = False

    def describe(self) -> int | str | None:
        """Its length, as of the settings of a search."""
        return "auto" if self.settles else self.steps

    def first(self, dense: Ticket, span: Span) -> Ticket:
        """The dense network, trained for its masks alone."""
        assert self.steps is not None
        return dataclasses.replace(dense, steps=span.rewind_step + self.steps)

    def ticket(self, snapshot: Snapshot, masks: Masks, span: Span) -> Ticket:
        """The ticket whose training finds the next level's masks."""
        ticket = self.start(snapshot, masks, span)
        steps = min(ticket.steps, self.steps or ticket.steps)
        return dataclasses.replace(ticket, steps=steps)


def find_trunk(
    rewind: Rewind,
    span: Span,
    steps_per_epoch: int,
    mask_epochs: float | str | None,
    mask_steps: int | None,
) -> Trunk | None:
    """What finds the masks of a search, or `None` if its tickets do.

    Raises:
        ValueError: if `mask_epochs` and `mask_steps` do not fit the search.
    """
    longest = span.steps - span.rewind_step
    if mask_epochs is None and mask_steps is None:
        return rewind.trunk and Trunk(rewind.trunk)
    received = f"Received: mask_epochs={mask_epochs!r}, mask_steps={mask_steps!r}"
    if rewind.ticket is not from_rewind_point:
        raise ValueError(
            "Trainings that only find masks leave tickets without trained weights to "
            "start from: they need rewind='weights' or rewind='continue'. "
            f"{received}, rewind={rewind!r}"
        )
    start = rewind.trunk or rewind.ticket
    if mask_epochs == "auto" and mask_steps is None:
        return Trunk(start, longest, settles=True)
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
    return Trunk(start, steps)
