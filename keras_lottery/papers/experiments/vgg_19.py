"""Frankle & Carbin, section 4: VGG-19, pruned globally, with warm-up."""

import dataclasses
from collections.abc import Mapping
from functools import partial

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
)
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.scales import cifar_10
from keras_lottery.tickets.allocation import Global


def run(lab: Lab) -> Mapping[str, Values]:
    """Trains at two learning rates; with warm-up, it prunes in two ways."""
    warm_up = round(10_000 / 112_480 * lab.recipe.steps)
    whole = Global(exclude=lab.recipe.left_alone, floor=0)
    arms = {
        "lr_0.1": (0.1, 0, whole),
        "lr_0.01": (0.01, 0, whole),
        "warm_up_0.1": (0.1, warm_up, whole),
        "layerwise": (0.1, warm_up, None),
    }
    faithful = lab.scale.is_faithful
    blocks, width = ((2, 2, 4, 4, 4), 64) if faithful else ((1, 1, 1), 8)
    searches = {
        arm: lab.search(
            arm,
            recipe=dataclasses.replace(lab.recipe, learning_rate=rate, warm_up=steps),
            model=partial(models.vgg, blocks, width),
            allocation=allocation,
            controls=["reinit"],
        )
        for arm, (rate, steps, allocation) in arms.items()
    }
    large, small, warm, layerwise = lab.panels("accuracy", searches, FINAL).values()
    return {
        "none": gain(large, 0.069, over="reinit", column=FINAL),
        "small": gain(small, 0.035, column=FINAL),
        "warm": gain(warm, 0.015, column=FINAL),
        "layerwise": gain(layerwise, 0.069, column=FINAL),
    }


EXPERIMENT = Experiment(
    "vgg_19",
    "Winning tickets of VGG-19, by learning rate, warm-up and scope of pruning",
    PAPER,
    cifar_10(
        "vgg_19",
        "460 trainings of 112,480 steps, days on a GPU",
        levels=19,
        report=(12, 15, 19),
    ),
    run,
    (
        Claim(
            "At learning rate 0.1, tickets of 7 % are no better than reinitialised "
            "ones",
            published="no winning tickets",
            source="section 4",
            value="none",
            reproduced=(-INFINITY, 0.2),
            unit="pp",
        ),
        Claim(
            "At learning rate 0.01, tickets of 3.5 % are within 1 pp of the dense "
            "network",
            published="within 1 pp",
            source="section 4",
            value="small",
            reproduced=(-1, INFINITY),
            unit="pp",
        ),
        Claim(
            "At 0.1 with warm-up, tickets of 1.5 % match the dense network",
            published="winning tickets",
            source="section 4",
            value="warm",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        Claim(
            "Pruned layer by layer, with warm-up, tickets of 6.9 % match the dense "
            "network",
            published="winning tickets",
            source="section 4",
            value="layerwise",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
    ),
)
