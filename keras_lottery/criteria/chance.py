"""Scores that know nothing."""

from keras_lottery.allocation import Scores
from keras_lottery.ticket import Snapshot


def random(snapshot: Snapshot) -> Scores:
    """Keeps weights at random."""
    return {
        name: snapshot.rng.random(mask.shape) for name, mask in snapshot.masks.items()
    }
