"""What a criterion is: a function of a snapshot, and how many rounds it prunes in."""

import functools
from collections.abc import Callable

from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.snapshot import Snapshot

Function = Callable[[Snapshot], Scores]


class Criterion:
    """What a weight is worth, larger means keep, and the rounds that it prunes in.

    Wherever a criterion is asked for, a plain function will do, which prunes at once.

    Args:
        score: a function of a snapshot: an array for each weight in `snapshot.masks`,
            of its shape; or for each layer of groups, where `snapshot.grouping` has
            groups that reach over layers.
        rounds: how often to score and prune if nothing else is asked for, each time
            the same share of what is left.
        allocation: the name of the allocation where none is asked for, if its scores
            do not compare between layers; by default that of the granularity.
        within_outputs: whether weights are ranked among those of one output alone,
            whatever each layer keeps of them in all.
        repair: what changes the weights that are left where no repair is asked for, if
            the method is not whole without: the name of one in `repair.OF_CRITERIA`.
    """

    def __init__(
        self,
        score: Function,
        rounds: int = 1,
        allocation: str | None = None,
        within_outputs: bool = False,
        repair: str | None = None,
    ) -> None:
        functools.update_wrapper(self, score)
        self.score = score
        self.rounds = rounds
        self.allocation = allocation
        self.within_outputs = within_outputs
        self.repair = repair

    def __call__(self, snapshot: Snapshot) -> Scores:
        return self.score(snapshot)

    def __repr__(self) -> str:
        return repr(getattr(self.score, "__name__", self.score))


def in_rounds(rounds: int) -> Callable[[Function], Criterion]:
    """Makes of a function a criterion that prunes in so many rounds.

    Example:

    >>> @in_rounds(10)
    ... def in_tenths(snapshot):
    ...     return snapshot.final
    >>> in_tenths.rounds
    10
    """
    return functools.partial(Criterion, rounds=rounds)


CriterionLike = str | Criterion | Function
"""What may be given for a criterion."""


def complete(criterion: Criterion | Function) -> Criterion:
    """The criterion, or one that is made of a plain function."""
    return criterion if isinstance(criterion, Criterion) else Criterion(criterion)
