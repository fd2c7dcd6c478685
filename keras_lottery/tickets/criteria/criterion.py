"""The class of criteria: a function of a snapshot, and how to prune by its scores."""

import functools
from collections.abc import Callable

from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.snapshot import Snapshot

Function = Callable[[Snapshot], Scores]


class Criterion:
    """Scores weights (larger means keep) and says in how many rounds to prune.

    Wherever a criterion is expected, a plain function can be passed as well; it prunes
    in one round.

    Args:
        score: a function of a snapshot. It returns an array for each weight in
            `snapshot.masks`, of its shape; or one for each layer of groups, if the
            groups of `snapshot.grouping` reach over layers.
        rounds: how often to score and prune by default, each time the same share of the
            remaining weights.
        allocation: the name of the default allocation, for a criterion whose scores
            cannot be compared between layers; if it is not given, the granularity
            decides.
        within_outputs: whether each weight is ranked only against the weights of the
            same output, however many the layer keeps.
        repair: the name of the default repair, one of `repair.OF_CRITERIA`, for a
            method that includes one.
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
    """Turns a function into a criterion that prunes in `rounds` rounds.

    Example:

    >>> @in_rounds(10)
    ... def in_tenths(snapshot):
    ...     return snapshot.final
    >>> in_tenths.rounds
    10
    """
    return functools.partial(Criterion, rounds=rounds)


CriterionLike = str | Criterion | Function
"""What can be passed as a criterion."""


def complete(criterion: Criterion | Function) -> Criterion:
    """Returns the criterion, or wraps a plain function as one."""
    return criterion if isinstance(criterion, Criterion) else Criterion(criterion)
