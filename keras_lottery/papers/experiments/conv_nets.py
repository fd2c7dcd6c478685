"""Frankle & Carbin, section 3: Conv-2, Conv-4 and Conv-6 on CIFAR-10."""

import dataclasses
from collections.abc import Mapping

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import ACCURACY, STOP, at, gain
from keras_lottery.papers.experiments.networks import narrow_conv_2, with_dropout
from keras_lottery.papers.experiments.scales import cifar_10, of_length, small_images


def conv_net(
    model: str,
    levels: int,
    faster: tuple[float, float],
    better: tuple[float, float],
    dropout: tuple[float, float],
    dropout_rate: float,
    others: Mapping[str, Scale] | None = None,
) -> Experiment:
    """The experiment of one network.

    Args:
        model: its name.
        levels: rounds of pruning.
        faster: the largest factor by which tickets stop sooner, and its density.
        better: the largest gain of tickets in percentage points, and its density.
        dropout: how much the dense network gains from dropout, and how much more its
            best tickets gain.
        dropout_rate: the factor by which the learning rate is higher with dropout.
        others: scales besides `"smoke"` and `"paper"`.
    """

    def run(lab: Lab) -> Mapping[str, Values]:
        # If a scale has fewer rounds, each of them prunes more.
        rate = 1 - 0.8 ** (levels / lab.scale.levels) if lab.scale.is_faithful else 0.2
        plain = lab.search("plain", rate=rate, controls={"reinit": 3})
        dropped = lab.search(
            "dropout",
            rate=rate,
            model=with_dropout(lab.scale.model),
            recipe=dataclasses.replace(
                lab.recipe, learning_rate=dropout_rate * lab.recipe.learning_rate
            ),
        )
        tables = lab.panels("accuracy", {"plain": plain, "dropout": dropped})
        table, other = tables["plain"], tables["dropout"]
        # The best density is the one with the highest validation accuracy.
        sparse = other[other["level"] > 0].groupby("density")
        best = sparse["early_stop_val_accuracy"].mean().idxmax()
        return {
            "faster": at(table, 1.0, STOP) / at(table, faster[1], STOP),
            "better": gain(table, better[1]),
            "over reinit": gain(table, better[1], over="reinit"),
            "dropout": 100 * (at(other, 1.0, ACCURACY) - at(table, 1.0, ACCURACY)),
            "dropout ticket": gain(other, best),
        }

    title = model.title().replace("_", "-")
    source = "figure 5 and section 3"
    return Experiment(
        model,
        f"Winning tickets of {title}, with and without dropout",
        PAPER,
        {
            **cifar_10(
                model,
                f"{5 * (2 + 5 * levels)} trainings of the recipe's length, hours on a "
                "GPU",
                levels,
                tuple(range(1, levels + 1)),
            ),
            **(others or {}),
        },
        run,
        (
            Claim(
                f"At {100 * faster[1]:.1f} %, tickets stop sooner than dense networks",
                published=f"{faster[0]} times",
                source=source,
                value="faster",
                reproduced=(1 + (faster[0] - 1) / 2, INFINITY),
                unit="times",
                sign=(1, INFINITY),
            ),
            effect(
                f"At {100 * better[1]:.1f} %, tickets beat dense networks",
                published=f"{better[0]} pp",
                source=source,
                value="better",
                size=better[0],
                unit="pp",
            ),
            effect(
                f"At {100 * better[1]:.1f} %, tickets beat reinitialised ones",
                published="far more accurate",
                source=source,
                value="over reinit",
                size=0,
                unit="pp",
            ),
            effect(
                "Dropout makes the dense network more accurate",
                published=f"{dropout[0]} pp",
                source="section 3",
                value="dropout",
                size=dropout[0],
                unit="pp",
            ),
            effect(
                "With dropout, tickets of the best density are more accurate than the "
                "dense network",
                published=f"up to {dropout[1]} pp",
                source="section 3",
                value="dropout ticket",
                size=dropout[1],
                unit="pp",
            ),
        ),
    )


CPU = Scale(
    "81 trainings of 8,000 steps, about an hour on 2 cores",
    small_images,
    narrow_conv_2,
    # At the paper's learning rate, 8,000 steps would not be enough.
    of_length(
        dataclasses.replace(models.recipe("conv_2"), learning_rate=1e-3), 8_000, 250
    ),
    replicates=3,
    levels=5,
    report=(1, 2, 3, 4, 5),
)
EXPERIMENTS = (
    conv_net("conv_2", 14, (3.5, 0.088), (3.4, 0.046), (2.1, 2.3), 3 / 2, {"cpu": CPU}),
    conv_net("conv_4", 14, (3.5, 0.092), (3.5, 0.111), (3.0, 4.6), 2 / 3),
    conv_net("conv_6", 12, (2.5, 0.151), (3.3, 0.264), (2.4, 4.7), 2 / 3),
)
