"""Liu et al.'s pruning and fine-tuning, masks by ADMM, and their R_p."""

from keras_lottery.in_fit.callbacks import ADMMPruning
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.lab import Lab, Model
from keras_lottery.papers.experiments.scales import of_length
from keras_lottery.papers.experiments.training import Trained
from keras_lottery.papers.models import Recipe
from keras_lottery.study.analysis import weight_correlation
from keras_lottery.tickets.allocation import Allocation

DROPS = (80 / 150, 120 / 150)
"""Where Liu et al.'s learning rate drops, as shares of a training."""
UPDATES = 15
GROWTH = 1.3
"""As in benchmarks/methods.py: the pull has to win before the training ends."""


def fine_tune(
    lab: Lab,
    name: str,
    trained: State,
    masks: Masks,
    replicate: int,
    recipe: Recipe,
    model: Model | None = None,
) -> Trained:
    """Pruning and fine-tuning: the trained weights in masks, trained once more.

    As long as before, and by the same schedule: only the masks tell one way of pruning
    from another.

    Args:
        lab: where to train.
        name: of the masks.
        trained: the weights of the dense network at the end of its training.
        masks: what is left.
        replicate, recipe, model: same as `Lab.train`.
    """
    return lab.train(
        f"{name}_fine_tuned_{replicate}",
        trained,
        masks,
        replicate=replicate,
        recipe=recipe,
        model=model,
    )


def admm(
    lab: Lab,
    name: str,
    start: State,
    sparsity: float,
    replicate: int,
    recipe: Recipe,
    allocation: Allocation,
    model: Model | None = None,
) -> Masks:
    """The masks that ADMM finds in half a training.

    Args:
        lab: where to train.
        name: of the network.
        start: its trained weights.
        sparsity: the share of weights to prune.
        replicate, recipe, model: same as `Lab.train`.
        allocation: of the sparsity.
    """
    half = recipe.steps // 2
    pruning = ADMMPruning(
        sparsity,
        allocation=allocation,
        growth=GROWTH,
        frequency=max(1, half // UPDATES),
    )
    pruned = lab.train(
        f"{name}_admm_{100 * sparsity:g}_{replicate}",
        start,
        replicate=replicate,
        recipe=of_length(recipe, half, recipe.eval_freq, DROPS),
        model=model,
        callbacks=[pruning],
    )
    built, _ = lab.model(replicate, recipe, model)
    return Masks({weight: pruned.final[weight] != 0 for weight in get_masks(built)})


def r_p(before: State, after: State) -> float:
    """R_p of all weights for p = 20 %, in %.

    Of a sparse network, p has to lie below its density: its zeros are the smallest.

    >>> import numpy as np
    >>> state = {"kernel": np.arange(10.0).reshape(2, 5)}
    >>> r_p(state, state)
    100.0
    """
    table = weight_correlation(before, after, 0.2)
    return 100 * float(table["correlation"].iloc[-1])
