"""Rewinds, which set the next ticket's start: `(snapshot, masks, span) -> ticket`."""

from collections.abc import Callable
from dataclasses import dataclass

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.registry import Registry
from keras_lottery.tickets import Snapshot, Ticket

__all__ = [
    "REWINDS",
    "FineTune",
    "Rewind",
    "Span",
    "from_end",
    "from_rewind_point",
    "get",
    "register",
    "rewind_step",
]


@dataclass(frozen=True)
class Span:
    """The part of the dense training that tickets repeat.

    Args:
        rewind_step: k, the step to go back to.
        steps: T, the length of the dense training.
    """

    rewind_step: int
    steps: int


NextTicket = Callable[[Snapshot, Masks, Span], Ticket]
"""Makes the ticket that training continues with, of a snapshot and its new masks."""


@dataclass(frozen=True)
class Rewind:
    """A way to continue training after pruning.

    Args:
        ticket: makes the ticket that is trained and reported.
        finder: makes the ticket whose training finds the next masks, if that is another
            one: a mask-finding run beside the tickets.
    """

    ticket: NextTicket
    finder: NextTicket | None = None


def from_rewind_point(snapshot: Snapshot, masks: Masks, span: Span) -> Ticket:
    """Starts from the weights and learning rate of step k, for T - k steps."""
    k = span.rewind_step
    return Ticket(masks, snapshot.rewind_point, k, span.steps - k)


def from_end(snapshot: Snapshot, masks: Masks, span: Span) -> Ticket:
    """Starts from the final weights and step k of the schedule, for T - k steps."""
    k = span.rewind_step
    return Ticket(masks, snapshot.final, k, span.steps - k)


@dataclass(frozen=True)
class FineTune:
    """Continues from the end of training, at a constant learning rate.

    Args:
        steps: the number of steps; by default as many as the dense training.
        learning_rate: the rate; by default the last one of the schedule.

    Reference:
        Han et al., [Learning both weights and connections for efficient neural
        networks](https://arxiv.org/abs/1506.02626), 2015, section 3.
    """

    steps: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            checks.count("steps", self.steps, 1)
        if self.learning_rate is not None:
            checks.number("learning_rate", self.learning_rate, 0)

    def __call__(self, snapshot: Snapshot, masks: Masks, span: Span) -> Ticket:
        steps = self.steps or span.steps
        # After the end of the dense training, the schedule stays at its last value.
        return Ticket(masks, snapshot.final, span.steps, steps, self.learning_rate)


REWINDS: Registry[Rewind] = Registry(
    "rewind",
    "a `Rewind` such as `Rewind(FineTune(steps, learning_rate))`",
    {
        # Frankle & Carbin 2019; to k > 0: Frankle et al. 2019, "Stabilizing".
        "weights": Rewind(from_rewind_point),
        # Renda, Frankle & Carbin 2020.
        "learning_rate": Rewind(from_end),
        "fine_tune": Rewind(FineTune()),
        # Frankle & Carbin 2019, appendix B, strategy 2: masks come from one run that
        # goes on after each pruning.
        "continue": Rewind(from_rewind_point, finder=from_end),
    },
    Rewind,
)
"""Ways to rewind by name."""

get = REWINDS.look_up
register = REWINDS.register


def check_rewind_to(rewind_to: int | str) -> None:
    """Raises ValueError if it is neither a step nor a number of epochs."""
    rewind_step(rewind_to, 1, checks.LARGEST)


def rewind_step(rewind_to: int | str, steps_per_epoch: int, steps: int) -> int:
    """Returns the rewind point as a step.

    Args:
        rewind_to: a step, or a number of epochs such as `"2ep"`.
        steps_per_epoch: steps in an epoch.
        steps: length of the training.

    Raises:
        ValueError: if `rewind_to` cannot be read, or lies outside the training.

    >>> rewind_step("2ep", steps_per_epoch=100, steps=1000)
    200
    """
    checks.count("steps_per_epoch", steps_per_epoch, 1)
    checks.count("steps", steps, 1)
    step = in_steps("rewind_to", rewind_to, steps_per_epoch)
    if not 0 <= step < steps:
        raise ValueError(
            f"Expected `rewind_to` to lie within the training of {steps} steps. "
            f"Received: rewind_to={rewind_to!r}, which is step {step}"
        )
    return step


def in_steps(name: str, value: int | str, steps_per_epoch: int, least: int = 0) -> int:
    """Converts a number of steps, or of epochs such as `"2ep"`, to steps.

    >>> in_steps("checkpoint", "0.5ep", steps_per_epoch=100)
    50
    """
    form = "a step, or epochs such as '2ep'"
    try:
        if isinstance(value, str) and value.endswith("ep"):
            step = round(float(value.removesuffix("ep")) * steps_per_epoch)
        else:
            step = checks.count(name, int(value) if isinstance(value, str) else value)
    except (OverflowError, ValueError):
        checks.refuse(name, form, value)
    if step < least:
        checks.refuse(name, f"{form}, {least} step at least", value)
    return step
