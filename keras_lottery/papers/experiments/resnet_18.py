"""Frankle & Carbin, section 4: a residual network, whose tickets need warm-up."""

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
)
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, at, gain
from keras_lottery.papers.experiments.scales import cifar_10, narrow_resnet
from keras_lottery.tickets.allocation import Global

SPARSITIES = (0.48, 0.729, 0.781, 0.882)
"""Those of scale cpu, which has fewer rounds: the claims', and one before them."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Trains at three learning rates, one with a warm-up of two thirds of the steps."""
    how: dict[str, Any] = {}
    if is_narrow := lab.scale.is_narrow:
        how = {"schedule": SPARSITIES}
    arms = {
        "lr_0.1": {"learning_rate": 0.1},
        "lr_0.01": {"learning_rate": 0.01},
        "warm_up_0.03": {"learning_rate": 0.03, "warm_up": 2 * lab.recipe.steps // 3},
    }
    searches = {
        arm: lab.search(
            arm,
            recipe=dataclasses.replace(lab.recipe, **changes),  # type: ignore[arg-type]
            allocation=Global(exclude=lab.recipe.left_alone, floor=0),
            controls=["reinit"],
            **how,
        )
        for arm, changes in arms.items()
    }
    tables = lab.panels("accuracy", searches, FINAL)
    large, small, warm = tables.values()
    accuracies = {
        "dense": at(large, 1.0, FINAL),
        "small": at(small, 0.271, FINAL),
        "warm": at(warm, 0.271, FINAL),
    }
    return {
        # The published ones are those of a larger network.
        **{name: np.nan if is_narrow else 100 * v for name, v in accuracies.items()},
        "small tickets": gain(small, 0.118, over="reinit", column=FINAL),
        "none": gain(large, 0.219, over="reinit", column=FINAL),
        "warm tickets": gain(warm, 0.118, over="reinit", column=FINAL),
    }


EXPERIMENT = Experiment(
    "resnet_18",
    "Winning tickets of ResNet-18 (20 layers), by learning rate and warm-up",
    PAPER,
    {
        **cifar_10(
            "resnet_20",
            "225 trainings of 30,000 steps, hours on a GPU",
            levels=10,
            report=(4, 6, 7, 10),
            small=partial(models.resnet, 8),
        ),
        "cpu": narrow_resnet(
            "72 trainings of 4,000 steps, about 45 minutes on 2 cores",
            levels=len(SPARSITIES),
            report=(2, 3, 4),
            drops=(2 / 3, 5 / 6),
        ),
    },
    run,
    (
        Claim(
            "Accuracy of the dense network at learning rate 0.1",
            published="90.5 %",
            source="section 4, figure 8",
            value="dense",
            reproduced=(89.5, 91.5),
            unit="%",
        ),
        Claim(
            "Accuracy of tickets of 27 % at learning rate 0.01",
            published="89.5 %",
            source="section 4, figure 8",
            value="small",
            reproduced=(88.5, 90.5),
            unit="%",
        ),
        Claim(
            "Accuracy of tickets of 27 % at learning rate 0.03 with warm-up",
            published="90.5 %",
            source="section 4, figure 8",
            value="warm",
            reproduced=(89.5, 91.5),
            unit="%",
        ),
        Claim(
            "At learning rate 0.1, tickets of 22 % are no better than reinitialised "
            "ones",
            published="no winning tickets",
            source="section 4, figure 8",
            value="none",
            reproduced=(-INFINITY, 0.2),
            unit="pp",
        ),
        Claim(
            "At learning rate 0.01, tickets of 11.8 % beat reinitialised ones",
            published="winning tickets (curves)",
            source="section 4, figure 8",
            value="small tickets",
            reproduced=(0.2, INFINITY),
            unit="pp",
            sign=(0, INFINITY),
        ),
        Claim(
            "At 0.03 with warm-up, tickets of 11.8 % beat reinitialised ones",
            published="winning tickets down to 11.8 %",
            source="section 4, figure 8",
            value="warm tickets",
            reproduced=(0.2, INFINITY),
            unit="pp",
            sign=(0, INFINITY),
        ),
    ),
)
