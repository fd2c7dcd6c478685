"""Frankle & Carbin, section 3: Conv-2, Conv-4 and Conv-6 on CIFAR-10."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

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
from keras_lottery.papers.experiments.networks import narrow_conv, with_dropout
from keras_lottery.papers.experiments.scales import cifar_10, of_length, small_images


def conv_net(
    model: str,
    levels: int,
    faster: tuple[float, float],
    better: tuple[float, float],
    dropout: tuple[float, float],
    dropout_rate: float,
    narrow: Sequence[float],
    steps: int,
    minutes: int,
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
        narrow: the densities of the tickets at scale cpu, those of the claims among
            them.
        steps, minutes: the length of one training at scale cpu, and how long all of
            them take on 2 cores.
    """

    def run(lab: Lab) -> Mapping[str, Values]:
        how: dict[str, Any] = {}
        if lab.scale.is_narrow:
            how = {"schedule": [1 - density for density in narrow]}
        trials = 1 if lab.scale.is_narrow else 3
        plain = lab.search("plain", controls={"reinit": trials}, **how)
        dropped = lab.search(
            "dropout",
            model=with_dropout(lab.scale.model),
            recipe=dataclasses.replace(
                lab.recipe, learning_rate=dropout_rate * lab.recipe.learning_rate
            ),
            **how,
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
    # Scale cpu has fewer steps, for which the paper's learning rate is too small.
    short = dataclasses.replace(models.recipe(model), learning_rate=1e-3)
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
            "cpu": Scale(
                f"{3 * (2 + 3 * len(narrow))} trainings of {steps:,} steps, about "
                f"{minutes} minutes on 2 cores",
                small_images,
                narrow_conv(int(model[-1]) // 2),
                of_length(short, steps, 250),
                replicates=3,
                levels=len(narrow),
            ),
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


EXPERIMENTS = (
    conv_net(
        "conv_2",
        levels=14,
        faster=(3.5, 0.088),
        better=(3.4, 0.046),
        dropout=(2.1, 2.3),
        dropout_rate=3 / 2,
        narrow=(0.46, 0.2, 0.088, 0.046),
        steps=8_000,
        minutes=25,
    ),
    conv_net(
        "conv_4",
        levels=14,
        faster=(3.5, 0.092),
        better=(3.5, 0.111),
        dropout=(3.0, 4.6),
        dropout_rate=2 / 3,
        narrow=(0.33, 0.111, 0.092),
        steps=6_000,
        minutes=35,
    ),
    conv_net(
        "conv_6",
        levels=12,
        faster=(2.5, 0.151),
        better=(3.3, 0.264),
        dropout=(2.4, 4.7),
        dropout_rate=2 / 3,
        narrow=(0.5, 0.264, 0.151),
        steps=6_000,
        minutes=45,
    ),
)
