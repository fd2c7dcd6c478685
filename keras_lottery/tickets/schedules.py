"""Schedules: the sparsity of each level of a search."""

import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keras_lottery import checks
from keras_lottery.registry import Registry
from keras_lottery.tickets.allocation.layerwise import Sparsity, check_shares

__all__ = [
    "SCHEDULES",
    "Schedule",
    "geometric",
    "get",
    "linear",
    "one_shot",
    "register",
]


MOST_LEVELS = 10_000


@dataclass(frozen=True)
class Schedule(Sequence[Sparsity]):
    """The sparsities of the levels 1, 2, …; level 0 is the dense network.

    Args:
        sparsities: share of weights pruned at each level, increasing, in (0, 1). Or, at
            each level, a mapping from name patterns to the layers' sparsities, as
            `prune` takes it, with the same patterns at each level; layers that match no
            pattern are not pruned.
        by_rate: whether the sparsities follow from a rate per round. An allocation with
            its own rates for some layers then changes the sparsity of the whole
            network. A sparsity that was given explicitly is met exactly.
    """

    sparsities: tuple[Sparsity, ...]
    by_rate: bool = False

    def __post_init__(self) -> None:
        checks.flag("by_rate", self.by_rate)
        if isinstance(self.sparsities, tuple | list) and self.by_layer:
            self._check_by_layer()
            return
        form = "at least one number, each between the one before (or 0) and 1"
        if not isinstance(self.sparsities, tuple | list) or not self.sparsities:
            checks.refuse("sparsities", form, self.sparsities)
        previous = 0.0
        for sparsity in self.sparsities:
            share = checks.fraction("sparsities", sparsity)
            if not previous < share < 1:
                checks.refuse("sparsities", form, self.sparsities)
            previous = share

    def _check_by_layer(self) -> None:
        form = (
            "shares by the same patterns of layers at each level, each pattern's at "
            "least as high as at the level before, and one of them higher"
        )
        before: Mapping[str, float] = {}
        for shares in self.sparsities:
            if not isinstance(shares, Mapping):
                checks.refuse("sparsities", form, self.sparsities)
            check_shares("sparsities", shares)
            before = before or dict.fromkeys(shares, 0.0)
            if shares.keys() != before.keys():
                checks.refuse("sparsities", form, self.sparsities)
            steps = [share - before[pattern] for pattern, share in shares.items()]
            if min(steps) < 0 or max(steps) == 0:
                checks.refuse("sparsities", form, self.sparsities)
            before = shares

    @property
    def by_layer(self) -> bool:
        """Whether the schedule gives the sparsity of each layer by name pattern."""
        return any(isinstance(each, Mapping) for each in self.sparsities)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.sparsities[index]

    def __len__(self) -> int:
        return len(self.sparsities)

    def __iter__(self) -> Iterator[Sparsity]:
        return iter(self.sparsities)


def geometric(rate: float = 0.2, levels: int = 15) -> Schedule:
    """Prunes the share `rate` of the remaining weights, `levels` times.

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
    checks.number("rate", rate, 1e-6, below=1)
    checks.count("levels", levels, 1, MOST_LEVELS)
    return Schedule(tuple(1 - (1 - rate) ** k for k in range(1, levels + 1)), True)


def linear(rate: float = 0.1, levels: int = 9) -> Schedule:
    """Prunes the share `rate` of the original weights at each of `levels` levels.

    Args:
        rate: share of all weights that each round prunes, in (0, 1).
        levels: number of rounds; there are fewer if no weights would be left.

    Raises:
        ValueError: if `rate` or `levels` is out of range.

    Reference:
        Chen et al. 2020, "The lottery ticket hypothesis for pre-trained BERT networks",
        section 3.1: a tenth of the original weights a round.

    Example:

    >>> list(linear(0.1, levels=4))
    [0.1, 0.2, 0.3, 0.4]
    >>> len(linear(0.25, levels=9))
    3
    """
    checks.number("rate", rate, 1e-6, below=1)
    checks.count("levels", levels, 1, MOST_LEVELS)
    # Rounded, because 3 * 0.1 is not 0.3 in floating point.
    sparsities = (round(k * rate, 12) for k in range(1, levels + 1))
    return Schedule(tuple(sparsity for sparsity in sparsities if sparsity < 1))


def one_shot(sparsity: float) -> Schedule:
    """Prunes once, to a sparsity.

    >>> list(one_shot(0.9))
    [0.9]
    """
    return Schedule((checks.fraction("sparsity", sparsity, zero=False),))


def _at_once(rate: float = 0.2, levels: int = 15) -> Schedule:
    """Prunes at once to the sparsity that `geometric` reaches in as many levels."""
    return Schedule((geometric(rate, levels)[-1],), by_rate=True)


SCHEDULES: Registry[Callable[..., Schedule]] = Registry(
    "schedule",
    "a list of sparsities, `schedules.geometric(rate, levels)`, "
    "`schedules.linear(rate, levels)` or `schedules.one_shot(sparsity)`",
    {"geometric": geometric, "linear": linear, "one_shot": _at_once},
)
"""Functions `(rate, levels) -> Schedule` by name."""

register = SCHEDULES.register


def get(schedule: Schedule | Sequence[Sparsity] | Sparsity | str) -> Schedule:
    """Returns the schedule for a schedule, a list of sparsities, a sparsity, or a name.

    A sparsity can be a mapping from name patterns to the layers' sparsities. A name
    stands for the function with its default rate and number of levels.

    Raises:
        ValueError: if the name is unknown, or the sparsities do not increase between 0
            and 1.

    >>> get([0.5, 0.9]).sparsities
    (0.5, 0.9)
    >>> get([{"conv*": 0.5, "out": 0}, {"conv*": 0.8, "out": 0.5}])[1]
    {'conv*': 0.8, 'out': 0.5}
    >>> get("geometric") == geometric(rate=0.2, levels=15)
    True
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        return SCHEDULES.look_up(schedule)()
    if isinstance(schedule, Mapping):
        schedule = [schedule]
    if isinstance(schedule, list | tuple) and any(
        isinstance(each, Mapping) for each in schedule
    ):
        return Schedule(tuple(schedule))
    try:
        if isinstance(schedule, numbers.Real):
            return one_shot(schedule)  # type: ignore[arg-type]
        return Schedule(tuple(schedule))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        form = (
            "sparsities that increase between 0 and 1: a list of them, "
            "`schedules.geometric(rate, levels)`, `schedules.linear(rate, levels)` or "
            "`schedules.one_shot(sparsity)`"
        )
        checks.refuse("schedule", form, schedule)
