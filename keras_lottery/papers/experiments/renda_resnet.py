"""Renda et al.: the same comparison on ResNet-20 and ResNet-56, as in the paper."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, at, gain
from keras_lottery.papers.experiments.renda import EXPERIMENT as ON_LENET
from keras_lottery.papers.experiments.rewinds import GAINS, SMALLER, WORDS, ways
from keras_lottery.papers.experiments.scales import cifar_10, narrow_resnet
from keras_lottery.tickets.allocation import Global


def experiment(
    depth: int,
    dense: float,
    published: bool,
    others: Mapping[str, Scale] | None = None,
) -> Experiment:
    """The experiment of one network.

    Args:
        depth: of the ResNet.
        dense: the dense network's published accuracy, in %.
        published: whether `GAINS` were published for this network. If not, the claims
            are about the direction only.
        others: scales besides `"smoke"` and `"paper"`.
    """

    def run(lab: Lab) -> Mapping[str, Values]:
        # Epoch 32 of 182: after pruning, training goes on for 150 epochs.
        k = round(32 / 182 * lab.recipe.steps)
        how: dict[str, Any] = {"allocation": Global(floor=0), "rewind_to": k}
        if lab.scale.is_narrow:
            how["schedule"] = [1 - 1 / smaller for smaller in SMALLER.values()]
        searches = {
            way: lab.search(way, rewind=rewind, **how)
            for way, rewind in ways(lab.recipe.steps - k).items()
        }
        table = lab.compare("accuracy", searches, FINAL)
        accuracy = 100 * at(table, 1.0, FINAL)
        # The published one is that of a larger network.
        return {"dense": np.nan if lab.scale.is_narrow else accuracy} | {
            f"{way} {smaller}": gain(table, 1 / smaller, way, "fine_tune", FINAL)
            for way in GAINS
            for smaller in SMALLER.values()
        }

    return Experiment(
        f"renda_resnet_{depth}",
        f"Rewinding versus fine-tuning after pruning ResNet-{depth}",
        ON_LENET.paper,
        {
            **cifar_10(
                f"resnet_{depth}",
                "15 trainings of 63,882 steps and 255 of 52,650, days on a GPU",
                levels=17,
                small=partial(models.resnet, 8),
                # The paper trains both networks with the same recipe.
                **vars(models.recipe("resnet_56")),
            ),
            **(others or {}),
        },
        run,
        (
            Claim(
                "Accuracy of the dense network",
                published=f"{dense} %",
                source="the authors' data",
                value="dense",
                reproduced=(dense - 1, dense + 1),
                unit="%",
            ),
            *(
                effect(
                    f"At {smaller} times fewer weights, {WORDS[way]} beats fine-tuning",
                    published=f"{figure} pp{'' if published else ' (ResNet-56)'}",
                    source="the authors' data",
                    value=f"{way} {smaller}",
                    size=figure if published else 0,
                    unit="pp",
                )
                for way, figures in GAINS.items()
                for smaller, figure in zip(
                    SMALLER.values(), figures.values(), strict=True
                )
            ),
        ),
    )


EXPERIMENTS = (
    experiment(
        20,
        dense=91.71,
        published=False,
        others={
            "cpu": narrow_resnet(
                "9 trainings of 4,000 steps and 36 of 3,297, about 25 minutes on 2 "
                "cores",
                levels=len(SMALLER),
                drops=(91 / 182, 136 / 182),
            )
        },
    ),
    experiment(56, dense=93.46, published=True),
)
