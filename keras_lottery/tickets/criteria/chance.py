"""Random scores."""

from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores


def random(snapshot: Snapshot) -> Scores:
    """Keeps weights at random."""
    return {
        name: snapshot.rng.random(mask.shape) for name, mask in snapshot.masks.items()
    }
