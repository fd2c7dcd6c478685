"""Trained networks pruned by ADMM, and how their weights correlate."""

from keras_lottery.allocation import Allocation, Uniform
from keras_lottery.analysis import weight_correlation
from keras_lottery.callbacks import ADMMPruning
from keras_lottery.experiments.lab import Lab, Model
from keras_lottery.experiments.scales import of_length
from keras_lottery.experiments.training import Trained
from keras_lottery.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.models import Recipe

DROPS = (80 / 150, 120 / 150)
"""Where Liu et al.'s learning rate drops, as shares of a training."""
UNIFORM = Uniform()
UPDATES = 15
GROWTH = 1.3
"""As in benchmarks/methods.py: the pull has to win before the training ends."""


def admm(
    lab: Lab,
    name: str,
    start: State,
    sparsity: float,
    replicate: int,
    recipe: Recipe,
    model: Model | None = None,
    allocation: Allocation = UNIFORM,
) -> tuple[Trained, Masks]:
    """Prunes a trained network by ADMM, then fine-tunes it: half a training each.

    Args:
        lab: where to train.
        name: of the network.
        start: its weights.
        sparsity: the share of weights to prune.
        replicate, recipe, model: as of `Lab.train`.
        allocation: of the sparsity.

    Returns:
        The fine-tuning, at the recipe's last learning rate, and the masks.
    """
    name = f"{name}_admm_{100 * sparsity:g}_{replicate}"
    half, often = recipe.steps // 2, recipe.eval_freq
    pruning = ADMMPruning(
        sparsity,
        allocation=allocation,
        growth=GROWTH,
        frequency=max(1, half // UPDATES),
    )
    pruned = lab.train(
        name,
        start,
        replicate=replicate,
        recipe=of_length(recipe, half, often, DROPS),
        model=model,
        callbacks=[pruning],
    )
    built, _ = lab.model(replicate, recipe, model)
    masks = Masks({weight: pruned.final[weight] != 0 for weight in get_masks(built)})
    last = recipe.learning_rate * 0.1 ** len(DROPS)
    tuned = lab.train(
        f"{name}_tuned",
        pruned.final,
        masks,
        replicate=replicate,
        recipe=of_length(recipe, half, often, learning_rate=last),
        model=model,
    )
    return tuned, masks


def r_p(before: State, after: State, masks: Masks) -> float:
    """R_p of what is left of two states, for p = 20 %, in %.

    >>> import numpy as np
    >>> state = {"kernel": np.arange(10.0).reshape(2, 5)}
    >>> r_p(state, state, Masks.dense({"kernel": (2, 5)}))
    100.0
    """
    table = weight_correlation(before, after, 0.2, masks)
    return 100 * float(table["correlation"].iloc[-1])
