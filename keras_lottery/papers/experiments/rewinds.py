"""Ways to continue after pruning, and the published gains on ResNet-56."""

from keras_lottery.tickets.rewind import FineTune, Rewind

WORDS = {"ticket": "weight rewinding", "learning_rate": "learning-rate rewinding"}
SMALLER = {25: 3.8, 13: 9.3, 6: 18.2, 3: 44.4}
"""How many times smaller the network was, by the closest density of LeNet in %."""
GAINS = {
    "ticket": {25: 0.86, 13: 1.59, 6: 2.67, 3: 3.69},
    "learning_rate": {25: 0.97, 13: 1.61, 6: 2.85, 3: 3.93},
}
"""Percentage points by which rewinding beat fine-tuning, by these densities."""


def ways(steps: int) -> dict[str, str | Rewind]:
    """Both kinds of rewinding, and fine-tuning for a number of steps."""
    return {
        "weights": "weights",
        "learning_rate": "learning_rate",
        "fine_tune": Rewind(FineTune(steps)),
    }
