"""Ways to go on after pruning, beside each other."""

from typing import TYPE_CHECKING, Any

from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import FINAL
from keras_lottery.rewind import FineTune, Rewind

if TYPE_CHECKING:
    import pandas as pd


def compare_rewinds(lab: Lab, k: int, **how: Any) -> "pd.DataFrame":
    """The same search three times, each with its own way to go on after pruning.

    Args:
        lab: where to train.
        k: the rewind point. Fine-tuning takes as long as the others.
        how: others of `Lab.search`.

    Returns:
        Their results, those of fine-tuning first.
    """
    ways: dict[str, str | Rewind] = {
        "fine_tune": Rewind(FineTune(lab.recipe.steps - k)),
        "weights": "weights",
        "learning_rate": "learning_rate",
    }
    searches = {
        way: lab.search(way, rewind=rewind, rewind_to=k, **how)
        for way, rewind in ways.items()
    }
    return lab.compare("accuracy", searches, FINAL)
