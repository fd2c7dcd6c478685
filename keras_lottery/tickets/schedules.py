"""How sparse each level of a search is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from keras_lottery.registry import Registry


@dataclass(frozen=True)
class Schedule(Sequence[float]):
    """The sparsities of the levels 1, 2, …; level 0 is the dense network.

    Args:
        sparsities: share of weights pruned at each level, increasing, in (0, 1).
        by_rate: whether they were made of a rate per round. An allocation with rates of
            its own for some layers then changes the sparsity of the whole network;
            a sparsity that was asked for as such is kept exactly.
    """

    sparsities: tuple[float, ...]
    by_rate: bool = False

    def __post_init__(self) -> None:
        previous = 0.0
        for sparsity in self.sparsities:
            if not previous < sparsity < 1:
                raise ValueError(
                    "Expected sparsities that increase from level to level, between 0 "
                    f"and 1. Received: sparsities={self.sparsities}"
                )
            previous = sparsity
        if not self.sparsities:
            raise ValueError("Expected at least one level. Received: no sparsities")

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.sparsities[index]

    def __len__(self) -> int:
        return len(self.sparsities)

    def __iter__(self) -> Iterator[float]:
        return iter(self.sparsities)


def geometric(rate: float = 0.2, levels: int = 15) -> Schedule:
    """Prunes the share `rate` of what is left, `levels` times.

    Args:
        rate: share of the remaining weights that each round prunes, in (0, 1).
        levels: number of rounds.

    Raises:
        ValueError: if `rate` or `levels` is out of range.

    Reference:
        Frankle & Carbin 2019, section 2, strategy 1 ("iterative pruning").

    Example:

    >>> [round(sparsity, 3) for sparsity in geometric(0.2, levels=3)]
    [0.2, 0.36, 0.488]
    """
    if not 0 < rate < 1:
        raise ValueError(f"Expected a rate between 0 and 1. Received: rate={rate}")
    if levels < 1:
        raise ValueError(f"Expected at least one level. Received: levels={levels}")
    return Schedule(tuple(1 - (1 - rate) ** k for k in range(1, levels + 1)), True)


def one_shot(sparsity: float) -> Schedule:
    """Prunes once.

    >>> list(one_shot(0.9))
    [0.9]
    """
    return Schedule((sparsity,))


def _at_once(rate: float = 0.2, levels: int = 15) -> Schedule:
    """Prunes at once what `geometric` prunes in as many levels."""
    return Schedule((geometric(rate, levels)[-1],), by_rate=True)


SCHEDULES: Registry[Callable[..., Schedule]] = Registry(
    "schedule",
    "a list of sparsities, `schedules.geometric(rate, levels)` or "
    "`schedules.one_shot(sparsity)`",
    {"geometric": geometric, "one_shot": _at_once},
)
"""Functions `(rate, levels) -> Schedule` by name."""

register = SCHEDULES.register


def get(schedule: Schedule | Sequence[float] | float | str) -> Schedule:
    """A schedule from a schedule, a list of sparsities, one sparsity, or a name.

    A name stands for the function's own rate and number of levels.

    Raises:
        ValueError: if the name is unknown, or the sparsities do not increase between 0
            and 1.

    >>> get([0.5, 0.9]).sparsities
    (0.5, 0.9)
    >>> get("geometric") == geometric(rate=0.2, levels=15)
    True
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        return SCHEDULES.look_up(schedule)()
    if isinstance(schedule, int | float):
        return one_shot(float(schedule))
    try:
        return Schedule(tuple(float(sparsity) for sparsity in schedule))
    except TypeError:
        raise ValueError(
            "Expected `schedule` to be a list of sparsities, "
            "`schedules.geometric(rate, levels)` or `schedules.one_shot(sparsity)`. "
            f"Received: schedule={schedule!r}"
        ) from None
