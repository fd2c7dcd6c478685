"""What a weight is worth: `Snapshot -> scores`, larger means keep.

A criterion is a function of a snapshot that returns, for each weight in
`snapshot.masks`, an array of the weight's shape. Any such function may be given
wherever a name may.
"""

from collections.abc import Callable

import numpy as np

from keras_lottery.allocation import Scores
from keras_lottery.registry import look_up
from keras_lottery.ticket import Snapshot

Criterion = Callable[[Snapshot], Scores]


def magnitude(snapshot: Snapshot) -> Scores:
    """|w_T|: keeps the weights that are large after training.

    Reference:
        Han et al. 2015; Frankle & Carbin 2019. "large_final" in Zhou et al. 2019.
    """
    return {name: np.abs(snapshot.final[name]) for name in snapshot.masks}


def random(snapshot: Snapshot) -> Scores:
    """Keeps weights at random."""
    return {
        name: snapshot.rng.random(mask.shape) for name, mask in snapshot.masks.items()
    }


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "large_final": magnitude,
    "random": random,
}


def get(criterion: str | Criterion) -> Criterion:
    """A criterion by name, or the one given.

    Raises:
        ValueError: if the name is unknown.

    >>> get("large_final") is magnitude
    True
    """
    return look_up("criterion", criterion, CRITERIA, "a function of a snapshot")
