"""The rules that every schedule follows."""

from collections.abc import Callable

from keras_lottery.testing.rules import rule
from keras_lottery.tickets import schedules
from keras_lottery.tickets.schedules import SCHEDULES, Schedule


def check_schedule(schedule: str | Schedule | Callable[..., Schedule]) -> None:
    """Checks a schedule, or a function that makes one.

    - The function takes a rate and a number of levels, both with a default, and returns
      a `Schedule` whose sparsities increase between 0 and 1.
    - The schedule has at most as many levels as requested.
    - The same arguments give the same schedule.

    Args:
        schedule: a name, a `Schedule`, or a function `(rate, levels) -> Schedule`.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_schedule("geometric")
    >>> check_schedule(lambda rate=0.2, levels=15: [0.5])
    Traceback (most recent call last):
    AssertionError: Broken rule: a schedule is a `schedules.Schedule`. Received: [0.5]
    """
    if isinstance(schedule, Schedule):
        return
    make = SCHEDULES.look_up(schedule)
    for arguments in ((), (0.2, 15), (0.5, 3), (0.1, 1)):
        try:
            made = make(*arguments)
        except (TypeError, ValueError) as error:
            raise AssertionError(
                "Broken rule: a function of a rate and a number of levels, both with a "
                f"default, makes a schedule. Received: {error} for {arguments}"
            ) from error
        rule(
            isinstance(made, Schedule),
            "a schedule is a `schedules.Schedule`",
            repr(made),
        )
        if arguments:
            rule(
                len(made) <= arguments[1],
                "a schedule has at most as many levels as it is asked for",
                f"{len(made)} levels for {arguments}",
            )
        rule(
            schedules.get(made) == make(*arguments),
            "the same arguments make the same schedule",
            f"another one for {arguments}",
        )
