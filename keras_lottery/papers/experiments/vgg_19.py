"""Frankle & Carbin, section 4: VGG-19, pruned globally, with warm-up."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.scales import cifar_10, narrow_vgg
from keras_lottery.tickets.allocation import Global

NARROW = 0.27
"""The density at scale cpu, whose network has a thousandth of the weights."""


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
    how: dict[str, Any] = {}
    if lab.scale.is_narrow:
        how = {"schedule": (1 - NARROW**0.5, 1 - NARROW)}
    searches = {
        arm: lab.search(
            arm,
            recipe=dataclasses.replace(lab.recipe, learning_rate=rate, warm_up=steps),
            allocation=allocation,
            controls=["reinit"],
            **how,
        )
        for arm, (rate, steps, allocation) in arms.items()
    }
    large, small, warm, layerwise = lab.panels("accuracy", searches, FINAL).values()

    def above(table: Any, density: float, over: str = "dense") -> np.ndarray:
        density = NARROW if lab.scale.is_narrow else density
        return gain(table, density, over=over, column=FINAL)

    none = above(large, 0.069, over="reinit")
    return {
        "none": none,
        "small": above(small, 0.035),
        "warm": above(warm, 0.015),
        "warm-up": above(warm, 0.069, over="reinit") - none,
        "layerwise": above(layerwise, 0.069),
    }


EXPERIMENT = Experiment(
    "vgg_19",
    "Winning tickets of VGG-19, by learning rate, warm-up and scope of pruning",
    PAPER,
    {
        **cifar_10(
            "vgg_19",
            "460 trainings of 112,480 steps, days on a GPU",
            levels=19,
            report=(12, 15, 19),
            small=partial(models.vgg, (1, 1, 1), 8),
        ),
        "cpu": narrow_vgg(
            "48 trainings of 4,000 steps, about 20 minutes on 2 cores",
            levels=2,
            report=(2,),
            drops=(1 / 2, 3 / 4),
        ),
    },
    run,
    (
        Claim(
            "At learning rate 0.1, tickets of 7 % (27 % at scale cpu) are no better "
            "than reinitialised ones",
            published="no winning tickets",
            source="section 4, figure 7",
            value="none",
            reproduced=(-INFINITY, 0.2),
            unit="pp",
        ),
        Claim(
            "At learning rate 0.01, tickets of 3.5 % (27 %) are within 1 pp of the "
            "dense network",
            published="within 1 pp down to 3.5 %",
            source="section 4, figure 7",
            value="small",
            reproduced=(-1, INFINITY),
            unit="pp",
        ),
        Claim(
            "At 0.1 with warm-up, tickets of 1.5 % (27 %) match the dense network",
            published="winning tickets down to 1.5 %",
            source="section 4, figure 7",
            value="warm",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        effect(
            "At 0.1, tickets of 7 % (27 %) gain more over reinitialised ones with "
            "warm-up than without",
            published="winning tickets with warm-up alone",
            source="section 4, figure 7",
            value="warm-up",
            size=0,
            unit="pp",
        ),
        Claim(
            "Pruned layer by layer, with warm-up, tickets of 6.9 % (27 %) match the "
            "dense network",
            published="winning tickets down to 6.9 %",
            source="appendix I.1, figure 38",
            value="layerwise",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
    ),
)
