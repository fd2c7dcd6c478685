"""Liu et al.'s pruning and fine-tuning, masks by ADMM, and their R_p."""

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
"""Where Liu et al.'s learning rate drops, as shares of a training."""
UPDATES = 15
GROWTH = 1.3
"""As in benchmarks/methods.py: the pull has to win before the training ends."""


def fine_tune(
    lab: Lab,
    name: str,
    trained: Mapping[int, State],
    masks: Mapping[int, Masks],
    recipe: Recipe,
    model: Model | None = None,
) -> dict[int, Trained]:
    """Pruning and fine-tuning: the trained weights in masks, trained once more.

    As long as before, and by the same schedule: only the masks tell one way of pruning
    from another.

    Args:
        lab: where to train, all replicates side by side.
        name: of the masks.
        trained: the weights of the dense network at the end of its training, by
            replicate.
        masks: what is left, by replicate.
        recipe, model: same as `Lab.train`.

    Returns:
        What each replicate's training gave.
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
        name: of the network.
        trained: the weights to start from, by replicate.
        sparsity: the share of weights to prune.
        recipe, model: same as `Lab.train`.
        allocation: of the sparsity.
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

    Of a sparse network, p has to lie below its density: its zeros are the smallest.

    >>> import numpy as np
    >>> state = {"kernel": np.arange(10.0).reshape(2, 5)}
    >>> r_p(state, state)
    100.0
    """
    table = weight_correlation(before, after, 0.2)
    return 100 * float(table["correlation"].iloc[-1])
