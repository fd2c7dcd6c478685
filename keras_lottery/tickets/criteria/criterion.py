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
    """

    def __init__(self, score: Function, rounds: int = 1) -> None:
        functools.update_wrapper(self, score)
        self.score = score
        self.rounds = rounds

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
