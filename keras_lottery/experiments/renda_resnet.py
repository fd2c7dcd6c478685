"""Renda et al.: the same comparison on ResNet-56, as in the paper."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from keras_lottery import models
from keras_lottery.experiments.experiment import Claim, Experiment, Values, effect
from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import FINAL, at, gain
from keras_lottery.experiments.renda import EXPERIMENT as ON_LENET
from keras_lottery.experiments.renda import PUBLISHED, SMALLER
from keras_lottery.experiments.scales import cifar_10
from keras_lottery.rewind import FineTune, Rewind


def run(lab: Lab) -> Mapping[str, Values]:
    """The same search three times, each with its own way to go on after pruning."""
    depth = 56 if lab.scale.is_faithful else 8
    how: dict[str, Any] = {
        "model": partial(models.resnet, depth),
        "allocation": "global",
    }
    # Epoch 32 of 182: what is pruned is trained for 150 epochs more.
    k = round(32 / 182 * lab.recipe.steps)
    tuned = Rewind(FineTune(lab.recipe.steps - k))
    ways: dict[str, str | Rewind] = {"fine_tune": tuned, **{w: w for w in PUBLISHED}}
    searches = {
        way: lab.search(way, rewind=rewind, rewind_to=k, **how)
        for way, rewind in ways.items()
    }
    table = lab.compare("accuracy", searches, FINAL)
    return {"dense": 100 * at(table, 1.0, FINAL)} | {
        f"{way} {smaller}": gain(table, 1 / smaller, way, "ticket", FINAL)
        for way in PUBLISHED
        for smaller in SMALLER.values()
    }


EXPERIMENT = Experiment(
    "renda_resnet",
    "Rewinding against fine-tuning after pruning ResNet-56",
    ON_LENET.paper,
    cifar_10(
        "resnet_56",
        "15 trainings of 70,980 steps and 255 of 58,500, days on a GPU",
        levels=17,
        report=(6, 10, 13, 17),
    ),
    run,
    (
        Claim(
            "The dense network's accuracy",
            *("93.46 %", "the authors' data", "dense", (92.46, 94.46), "%"),
        ),
        *(
            effect(
                f"{smaller} times smaller, rewinding the {way.replace('_', ' ')} beats "
                "fine-tuning",
                *(f"{figure} pp", "the authors' data", f"{way} {smaller}"),
                *(figure, "pp"),
            )
            for way, figures in PUBLISHED.items()
            for smaller, figure in zip(SMALLER.values(), figures.values(), strict=True)
        ),
    ),
)
