"""The rules that every control follows."""

import dataclasses

import numpy as np

from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.testing import example
from keras_lottery.testing.rules import copies, rule, same, shapes
from keras_lottery.tickets import Snapshot, Ticket, controls
from keras_lottery.tickets.allocation import Uniform
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import magnitude


def check_control(control: str | Control) -> None:
    """Checks a control for a ticket that keeps a third of a small network.

    - It returns a ticket with masks and weights of the same names and shapes. This
      ticket keeps as many weights in total, starts at the same step, and trains for as
      many steps at the same learning rate, so that the two can be compared.
    - The weights that it keeps are finite numbers.
    - The same snapshot gives the same control: random numbers come from `snapshot.rng`.
    - It changes neither the ticket nor the snapshot.

    Args:
        control: a name, or a function `(ticket, snapshot) -> ticket`.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_control("shuffle")
    >>> check_control(lambda ticket, snapshot: None)
    Traceback (most recent call last):
    AssertionError: Broken rule: a control makes a `Ticket`. Received: None
    """
    make = controls.get(control)
    ticket, snapshot = _found()
    before = _contents(ticket, snapshot)
    with seeded(1):
        made = make(ticket, snapshot)
    rule(isinstance(made, Ticket), "a control makes a `Ticket`", made)
    for part in ("masks", "weights"):
        expected, received = (shapes(getattr(t, part)) for t in (ticket, made))
        rule(
            expected == received,
            f"a control's {part} have the names and shapes of the ticket's: {expected}",
            received,
        )
    rule(
        made.masks.kept == ticket.masks.kept,
        f"a control keeps as many weights as the ticket: {ticket.masks.kept}",
        made.masks.kept,
    )
    for part in ("step", "steps", "learning_rate"):
        expected, received = getattr(ticket, part), getattr(made, part)
        rule(
            expected == received,
            f"a control is trained as the ticket is: {part}={expected}",
            received,
        )
    for name, mask in made.masks.items():
        rule(
            bool(np.isfinite(made.weights[name][mask]).all()),
            "the weights that a control keeps are finite",
            f"others for `{name}`",
        )
    rule(
        same(before, _contents(ticket, snapshot)),
        "a control changes neither the ticket nor the snapshot",
        "other arrays in them afterwards",
    )
    with seeded(2):
        again = make(*_found())
    rule(
        made.masks == again.masks and same(made.weights, again.weights),
        "the same snapshot makes the same control, and random numbers come from "
        "`snapshot.rng`",
        "another control the second time",
    )


def _found() -> tuple[Ticket, Snapshot]:
    """A ticket, and the snapshot in which it was found."""
    snapshot = example.snapshot()
    scores = magnitude(snapshot)
    masks = Uniform()(scores, snapshot.masks, 0.65)
    ticket = Ticket(masks, snapshot.rewind_point, step=10, steps=90)
    return ticket, dataclasses.replace(snapshot, scores=scores)


def _contents(ticket: Ticket, snapshot: Snapshot) -> dict[str, np.ndarray]:
    return {**example.contents(snapshot), **copies(ticket.weights)}
