"""Frankle & Carbin, appendix G: tickets of LeNet-300-100 with other recipes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_lottery.papers.experiments.experiment import (
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import gain
from keras_lottery.papers.experiments.networks import with_dropout
from keras_lottery.papers.experiments.scales import MOMENTUM, lenet
from keras_lottery.tickets.allocation import Global

# The differences from Adam at 0.0012.
RECIPES: dict[str, dict[str, Any]] = {
    "adam": {},
    "adam_slow": {"learning_rate": 2e-4},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "sgd_fast": {"optimizer": "sgd", "learning_rate": 0.4},
    "momentum": MOMENTUM,
    # With Adam, whose learning rate is small, this decay would have no effect.
    "weight_decay": {**MOMENTUM, "weight_decay": 1e-4},
}


def run(lab: Lab) -> Mapping[str, Values]:
    """Runs a search for each recipe, which halves the weights at each level."""
    how: dict[str, Any] = {"rate": 0.5, "controls": ["reinit"]}
    searches = {
        name: lab.search(name, recipe=dataclasses.replace(lab.recipe, **changes), **how)
        for name, changes in RECIPES.items()
    }
    searches["dropout"] = lab.search(
        "dropout", model=with_dropout(lab.scale.model), **how
    )
    searches["global"] = lab.search("global", allocation=Global(floor=0), **how)
    tables = lab.panels("accuracy", searches)
    return {name: gain(table, 0.128) for name, table in tables.items()} | {
        f"{name} over reinit": gain(table, 0.128, over="reinit")
        for name, table in tables.items()
    }


WORDS = {
    "adam": "Adam at 0.0012",
    "adam_slow": "Adam at 0.0002",
    "sgd": "SGD at 0.1",
    "sgd_fast": "SGD at 0.4",
    "momentum": "SGD with momentum 0.9 at 0.05",
    "weight_decay": "SGD with momentum and weight decay 0.0001",
    "dropout": "Adam and dropout",
    "global": "Adam and global pruning",
}
# The paper has these for other networks only.
NOT_IN_THE_PAPER = ("weight_decay", "dropout", "global")
NOWHERE = "no published figure"


def claims(name: str, words: str) -> tuple[Claim, Claim]:
    """The claims that tickets win with a recipe, and would not with other weights."""
    is_open = name in NOT_IN_THE_PAPER
    return (
        effect(
            f"With {words}, tickets of 13 % beat the dense network",
            published="open" if is_open else "accuracy rises (curves)",
            source=NOWHERE if is_open else "appendix G",
            value=name,
            size=0,
            unit="pp",
        ),
        effect(
            f"With {words}, tickets of 13 % beat reinitialised ones",
            published="more accurate" if name == "adam" else "open",
            source="figure 4" if name == "adam" else NOWHERE,
            value=f"{name} over reinit",
            size=0,
            unit="pp",
        ),
    )


EXPERIMENT = Experiment(
    "lenet_recipes",
    "Tickets of LeNet-300-100 with other optimizers, learning rates and regularisation",
    PAPER,
    lenet(
        cpu="168 trainings of 7,328 steps, about 20 minutes on 2 cores",
        paper="280 trainings of 50,000 steps",
        levels=4,
        report=(3,),
    ),
    run,
    tuple(claim for name, words in WORDS.items() for claim in claims(name, words)),
)
