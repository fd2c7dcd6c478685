"""Tan and Motani: filters are dropped in the order of their mean activation."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import ACCURACY, LABELS
from keras_lottery.papers.experiments.scales import of_length, small_images
from keras_lottery.papers.models import Recipe
from keras_lottery.structured import Filters, of_filters
from keras_lottery.tickets.allocation import Uniform

if TYPE_CHECKING:
    import pandas as pd

WIDTHS = (64, 64, 128, 128)
"""The numbers of filters in the convolutions of Model C."""
HIDDEN = 256
REPORT = (3, 6, 8)
"""The rounds after which the paper's figures are compared with ours."""
STUCK = 11.0
"""The accuracy in % up to which a training has learnt nothing about ten classes."""


def model_c(
    input_shape: tuple[int, ...],
    classes: int = 10,
    shrink: int = 1,
) -> keras.Model:
    """Builds Model C: four convolutions, each followed by pooling, and a hidden layer.

    Args:
        input_shape, classes: the shape of the inputs, and the number of classes.
        shrink: the factor by which the numbers of filters and units are divided.

    >>> model_c((32, 32, 3)).count_params()
    394058
    """
    stack: list[layers.Layer] = []
    for index, width in enumerate(WIDTHS, start=1):
        stack += [
            layers.Conv2D(
                width // shrink,
                3,
                padding="same",
                activation="relu",
                name=f"conv_{index}",
            ),
            layers.MaxPooling2D(padding="same", name=f"pool_{index}"),
        ]
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *stack,
            layers.Flatten(name="flatten"),
            layers.Dense(HIDDEN // shrink, "relu", name="hidden_1"),
            layers.Dense(classes, name="output"),
        ],
        name="model_c",
    )


def left(rounds: int) -> float:
    """The share of filters that is left if each round drops a fifth, rounded down.

    >>> [round(100 * left(rounds), 1) for rounds in REPORT]
    [52.6, 28.6, 19.3]
    """
    kept = list(WIDTHS)
    for _ in range(rounds):
        kept = [math.ceil(0.8 * width) for width in kept]
    return sum(kept) / sum(WIDTHS)


def sparsity(rounds: int) -> float:
    """The sparsity of the network, whose hidden layer keeps all units."""
    filters = sum(WIDTHS)
    return (1 - left(rounds)) * filters / (filters + HIDDEN)


def least_active(filters: Filters) -> np.ndarray:
    """The mean activation of each filter, before the pooling.

    The mean is over the examples of the calibration; in the paper, it is over all
    training data.
    """

    def activity(maps: np.ndarray) -> np.ndarray:
        # The units of the hidden layer have no positions in a map.
        return np.abs(maps).reshape(len(maps), -1, maps.shape[-1]).mean(axis=1)

    return filters.of_maps(activity).mean(axis=0)


def most_active(filters: Filters) -> np.ndarray:
    """The negative mean activation, with which the most active filters are dropped."""
    return -least_active(filters)


def run(lab: Lab) -> Mapping[str, Values]:
    """Drops filters in three orders, the least active ones also with other weights."""
    import pandas as pd

    rounds = range(1, lab.scale.levels + 1)
    report = [number for number in REPORT if number in rounds]
    tables = {
        "least": search(lab, "least", rounds, of_filters(least_active), {"reinit": 1}),
        # Random filters need not be drawn anew in each round.
        "random": search(lab, "random", report, "random"),
        "most": search(lab, "most", rounds, of_filters(most_active)),
    }
    table = pd.concat(tables.values(), ignore_index=True)
    lab.table("trainings", table.round(4))
    label = LABELS[ACCURACY]
    drawn = table.assign(**{"filters left (%)": 100 * table["left"]})
    lab.figure("dropnet", lines(drawn, "filters left (%)", "accuracy", label, "order"))
    lab.table("stuck", counts(table))
    values: dict[str, Values] = {}
    for number in REPORT:
        at = partial(accuracies, table, number)
        values |= {
            f"cost of {number}": accuracies(table, 0, "least") - at("least"),
            f"over random {number}": at("least") - at("random"),
            f"random over most {number}": at("random") - at("most"),
            f"reinit over least {number}": at("least, reinit") - at("least"),
            f"stuck {number}": np.float64((at("least") <= STUCK).sum()),
        }
    return values


def search(
    lab: Lab,
    name: str,
    rounds: Sequence[int],
    criterion: Any,
    controls: Mapping[str, int] | None = None,
) -> "pd.DataFrame":
    """Drops filters of each convolution, and starts again from the initial weights.

    Args:
        lab: the lab in which to train.
        name: the name of the order.
        rounds: the rounds of the paper after which filters are dropped.
        criterion: the criterion that chooses the filters.
        controls: the controls to train for the tickets of the reported rounds.

    Returns:
        A row for each training: `order`, `rounds`, the share of filters `left`,
        `replicate`, and the test `accuracy` in % at the early stop.
    """
    found = lab.search(
        name,
        schedule=[sparsity(number) for number in rounds],
        criterion=criterion,
        granularity="filter",
        allocation=Uniform(exclude=["hidden_1"]),
        report_levels=[n for n, k in enumerate(rounds, 1) if k in REPORT],
        controls=controls or (),
    )
    results = found.results()
    numbers = dict(enumerate((0, *rounds)))
    names = {"ticket": name} | {c: f"{name}, {c}" for c in controls or ()}
    number = results["level"].map(numbers)
    return results[["replicate"]].assign(
        order=results["variant"].map(names),
        rounds=number,
        left=number.map(left),
        accuracy=100 * results[ACCURACY],
    )


def accuracies(table: "pd.DataFrame", rounds: int, order: str) -> np.ndarray:
    """The accuracies of an order after some rounds, one for each replicate."""
    rows = table[(table["rounds"] == rounds) & (table["order"] == order)]
    return rows.sort_values("replicate")["accuracy"].to_numpy()


def counts(table: "pd.DataFrame") -> "pd.DataFrame":
    """The numbers of all trainings and of stuck ones, for each order and round."""
    return (
        table.assign(stuck=table["accuracy"] <= STUCK)
        .groupby(["order", "rounds"], sort=False)
        .agg(
            left=("left", "first"),
            trainings=("accuracy", "size"),
            median=("accuracy", "median"),
            stuck=("stuck", "sum"),
        )
        .reset_index()
    )


def _scales() -> dict[str, Scale]:
    recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.1,
        batch_size=64,
        steps=4 * 703,
        eval_freq=351,
        rates={"conv_*": 0.2},
    )
    paper = dataclasses.replace(recipe, batch_size=32)
    return {
        "smoke": Scale(
            "seconds",
            "digits",
            partial(model_c, shrink=8),
            of_length(recipe, 10, 5),
            replicates=1,
            levels=3,
            is_faithful=False,
        ),
        "cpu": Scale(
            "75 trainings of 2,812 steps, at half of Model C's width, about an hour "
            "on one core",
            small_images,
            partial(model_c, shrink=2),
            recipe,
            replicates=3,
            levels=8,
        ),
        "paper": Scale(
            "375 trainings of 28,120 steps, where the authors train up to 100 epochs: "
            "hours on a GPU",
            "cifar10",
            model_c,
            of_length(paper, 20 * 1406, 703),
            replicates=15,
            levels=8,
        ),
    }


def _cost(rounds: int, published: float) -> Claim:
    share = 100 * left(rounds)
    return Claim(
        f"With {share:.1f} % of the filters, accuracy is {66.6 - published:.1f} points "
        "below the dense network's",
        published=f"{published} against 66.6 %",
        source="the authors' results of Model C, 15 seeds",
        value=f"cost of {rounds}",
        reproduced=(66.6 - published - 2, 66.6 - published + 2),
        unit="pp",
    )


EXPERIMENT = Experiment(
    "dropnet",
    "Filters dropped round by round, the least active ones first",
    "Tan & Motani 2020, [DropNet: reducing neural network complexity via iterative "
    "pruning](https://arxiv.org/abs/2207.06646)",
    _scales(),
    run,
    (
        _cost(3, 64.5),
        _cost(6, 60.7),
        _cost(8, 57.4),
        Claim(
            "With 28.6 % of the filters, dropping them at random is as good as "
            "dropping the least active ones",
            published="60.7 against 60.6 %",
            source="the authors' results of Model C",
            value="over random 6",
            reproduced=(-2, 2),
            unit="pp",
        ),
        effect(
            "With 19.3 % of the filters, dropping the least active ones beats dropping "
            "them at random",
            published="57.4 against 52.3 %",
            source="the authors' results of Model C",
            value="over random 8",
            size=5.1,
            unit="pp",
        ),
        effect(
            "With 28.6 % of the filters, dropping the most active ones is worse than "
            "dropping them at random",
            published="44.9 % at 33.3 % (in the whole network)",
            source="the authors' results of Model C",
            value="random over most 6",
            size=0,
            unit="pp",
        ),
        Claim(
            "With 28.6 % of the filters, other initial weights are as good as the "
            "original ones",
            published="no loss with up to 70 to 80 % dropped",
            source="section 6, figure 17",
            value="reinit over least 6",
            reproduced=(-1, INFINITY),
            unit="pp",
            sign=(-2, INFINITY),
        ),
        Claim(
            "With 19.3 % of the filters, the least active ones dropped, no training is "
            "stuck at 10 %",
            published="deviation of 1.5 pp over 15 seeds",
            source="the authors' results of Model C",
            value="stuck 8",
            reproduced=(-INFINITY, 0),
        ),
    ),
)
