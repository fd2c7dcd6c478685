"""Prunes filters, and trains the smaller networks that remain in a lab."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    mask_model,
    set_masks,
    set_state,
)
from keras_lottery.masks import Masks
from keras_lottery.papers import models
from keras_lottery.papers.experiments.figures import heat_map
from keras_lottery.papers.experiments.lab import Lab, Model, with_kernel
from keras_lottery.papers.experiments.measures import FINAL
from keras_lottery.papers.experiments.scales import of_length
from keras_lottery.papers.experiments.training import Start
from keras_lottery.papers.models import Recipe
from keras_lottery.pruning import prune
from keras_lottery.structured import compact

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Smaller:
    """Builds a network without the filters that masks prune, with new weights.

    Args:
        model: the network's name, or a function `(input_shape, classes) -> model`.
        masks: the masks.

    Example:

    >>> model = mask_model(models.lenet_300_100((8, 8, 1)))
    >>> prune(model, 0.5, "l1", granularity="filter")
    >>> small = Smaller("lenet_300_100", get_masks(model))((8, 8, 1), 10)
    >>> [layer.units for layer in small.layers[1:]]
    [150, 50, 10]
    """

    model: Model
    masks: Masks

    def __call__(
        self, input_shape: tuple[int, ...], classes: int, **how: Any
    ) -> keras.Model:
        """Builds the smaller network, without compiling it."""
        model = models.get(self.model)(input_shape, classes, **how)
        masked = mask_model(model, prunable=with_kernel)
        set_masks(masked, self.masks)
        # Cloning draws new weights. Weights that are cut out of a wide layer would have
        # the standard deviation of that layer.
        return keras.models.clone_model(compact(masked))


@dataclass(frozen=True)
class Pruned:
    """A trained network whose filters were pruned, whole and without them.

    Args:
        model: builds the smaller network.
        weights: the weights of the smaller network, which come from the trained one.
        whole: the masked network.
        network: the smaller network, compiled.
    """

    model: Smaller
    weights: State
    whole: keras.Model
    network: keras.Model


def pruned(
    lab: Lab,
    state: State,
    sparsity: float | Mapping[str, float],
    criterion: Any,
    replicate: int = 0,
    recipe: Recipe | None = None,
    model: Model | None = None,
    **how: Any,
) -> Pruned:
    """Prunes filters of a trained network, and removes them.

    Args:
        lab: the lab in which it was trained.
        state: its weights.
        sparsity, criterion, how: same as in `prune`.
        replicate: the seed of random criteria.
        recipe, model: same as in `Lab.train`.
    """
    whole, _ = lab.model(recipe=recipe, model=model)
    set_state(whole, state)
    prune(whole, sparsity, criterion, granularity="filter", seed=replicate, **how)
    network = compact(whole)
    return Pruned(
        Smaller(model or lab.scale.model, get_masks(whole)),
        get_state(mask_model(network, prunable=with_kernel)),
        whole,
        network,
    )


def tuning(lab: Lab, drops: tuple[float, ...]) -> Recipe:
    """The recipe for fine-tuning: a quarter of the steps, a tenth of the learning rate.

    Args:
        lab: the lab in which the dense network was trained.
        drops: when the learning rate drops, as shares of the fine-tuning.
    """
    steps = max(1, lab.recipe.steps // 4)
    rate = lab.recipe.learning_rate / 10
    return of_length(lab.recipe, steps, steps, drops, learning_rate=rate)


def tune(
    lab: Lab, found: Mapping[tuple[str, int], Pruned], drops: tuple[float, ...]
) -> "pd.DataFrame":
    """Fine-tunes networks of one shape.

    Args:
        lab: the lab in which to train.
        found: the networks, by the way in which they were pruned and the replicate.
        drops: same as in `tuning`.

    Returns:
        A row for each `way`, `replicate` and `tuning` ("before" or "after"), with the
        test `accuracy` in %.
    """
    import pandas as pd

    starts = {
        f"{way}_{replicate}".replace(", ", "_").replace(" ", "_"): Start(
            weights=network.weights, replicate=replicate
        )
        for (way, replicate), network in found.items()
    }
    model = next(iter(found.values())).model
    done = lab.train_all("tuned", starts, tuning(lab, drops), model)
    rows = []
    for (way, replicate), trained in zip(found, done.values(), strict=True):
        before = accuracy(lab, found[way, replicate].network)
        after = 100 * trained.metrics[FINAL]
        rows.append((way, replicate, "before", before))
        rows.append((way, replicate, "after", after))
    return pd.DataFrame(rows, columns=["way", "replicate", "tuning", "accuracy"])


def by_way(table: "pd.DataFrame", tuning: str) -> "pd.DataFrame":
    """The accuracies of `tune`, with ways as columns and replicates as rows."""
    rows = table[table["tuning"] == tuning]
    return rows.pivot(index="replicate", columns="way", values="accuracy")


def draw(table: "pd.DataFrame") -> "Figure":
    """The mean accuracies of `tune`, by way, before fine-tuning and after it."""
    means = table.pivot_table("accuracy", "way", "tuning", sort=False)
    return heat_map(means, "test accuracy (%)", ("fine-tuning", "pruned by"))


def accuracy(lab: Lab, network: keras.Model) -> float:
    """The accuracy of a compiled network on the test data, in %."""
    metrics = network.evaluate(
        *lab.splits.test, batch_size=1000, verbose=0, return_dict=True
    )
    return 100 * metrics["accuracy"]
