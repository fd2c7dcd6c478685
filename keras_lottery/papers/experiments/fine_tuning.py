"""Liu et al.'s pruning and fine-tuning, masks found by ADMM, and their R_p."""

from collections.abc import Mapping

from keras_lottery.in_fit.callbacks import ADMMPruning
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.lab import Lab, Model
from keras_lottery.papers.experiments.scales import of_length
from keras_lottery.papers.experiments.training import Start, Trained
from keras_lottery.papers.models import Recipe
from keras_lottery.study.analysis import weight_correlation
from keras_lottery.tickets.allocation import Allocation

DROPS = (80 / 150, 120 / 150)
"""Where the learning rate drops in Liu et al., as shares of a training."""
UPDATES = 15
GROWTH = 1.3
"""Same as in benchmarks/methods.py: ADMM has to converge within the training."""


def fine_tune(
    lab: Lab,
    name: str,
    trained: Mapping[int, State],
    masks: Mapping[int, Masks],
    recipe: Recipe,
    model: Model | None = None,
) -> dict[int, Trained]:
    """Prunes trained weights by masks, and trains them once more.

    Fine-tuning is as long as the first training, with the same schedule, so that ways
    of pruning differ in their masks only.

    Args:
        lab: where to train, all replicates side by side.
        name: the name of the masks.
        trained: the weights of the dense network at the end of its training, by
            replicate.
        masks: by replicate.
        recipe, model: same as in `Lab.train`.

    Returns:
        The result of each replicate's training.
    """
    starts = {
        f"replicate_{replicate}": Start(
            weights=trained[replicate], masks=left, replicate=replicate
        )
        for replicate, left in masks.items()
    }
    done = lab.train_all(f"{name}_fine_tuned", starts, recipe, model)
    return dict(zip(masks, done.values(), strict=True))


def admm(
    lab: Lab,
    name: str,
    trained: Mapping[int, State],
    sparsity: float,
    recipe: Recipe,
    allocation: Allocation,
    model: Model | None = None,
) -> dict[int, Masks]:
    """The masks that ADMM finds in half a training, by replicate.

    Args:
        lab: where to train, all replicates side by side.
        name: the name of the network.
        trained: the weights to start from, by replicate.
        sparsity: the share of weights to prune.
        recipe, model: same as in `Lab.train`.
        allocation: how the sparsity is spread over the layers.
    """
    half = recipe.steps // 2
    pruning = ADMMPruning(
        sparsity,
        allocation=allocation,
        growth=GROWTH,
        frequency=max(1, half // UPDATES),
    )
    pruned = lab.train_all(
        f"{name}_admm_{100 * sparsity:g}",
        {
            f"replicate_{replicate}": Start(weights=state, replicate=replicate)
            for replicate, state in trained.items()
        },
        of_length(recipe, half, recipe.eval_freq, DROPS),
        model,
        callbacks=[pruning],
    )
    built, _ = lab.model(recipe=recipe, model=model)
    return {
        replicate: Masks({n: found.final[n] != 0 for n in get_masks(built)})
        for replicate, found in zip(trained, pruned.values(), strict=True)
    }


def r_p(before: State, after: State) -> float:
    """R_p of all weights for p = 20 %, in %.

    For a sparse network, p has to be below its density, since zeros are the smallest.

    >>> import numpy as np
    >>> state = {"kernel": np.arange(10.0).reshape(2, 5)}
    >>> r_p(state, state)
    100.0
    """
    table = weight_correlation(before, after, 0.2)
    return 100 * float(table["correlation"].iloc[-1])
