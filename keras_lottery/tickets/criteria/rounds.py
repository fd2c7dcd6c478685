"""Criteria that are asked again and again while weights are taken away."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def in_rounds(rounds: int) -> Callable[[T], T]:
    """Gives a criterion the number of rounds that it prunes in, if none is asked for.

    Args:
        rounds: how often to score and prune, each time the same share of what is left.

    Example:

    >>> @in_rounds(10)
    ... def in_tenths(snapshot):
    ...     return snapshot.final
    >>> in_tenths.rounds
    10
    """

    def mark(criterion: T) -> T:
        criterion.rounds = rounds  # type: ignore[attr-defined]
        return criterion

    return mark
