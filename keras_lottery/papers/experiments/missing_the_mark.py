"""Frankle et al.: what methods that prune before training know of single weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.tickets.allocation import Global

BEFORE = ("magnitude", "snip", "grasp", "synflow", "random")
ABLATIONS = ("shuffle", "reinit", "invert")
SPARSITIES = (0.9, 0.98)


def run(lab: Lab) -> Mapping[str, Values]:
    """Compares methods before training with magnitude after it, and their ablations."""
    how: dict[str, Any] = {"schedule": SPARSITIES, "allocation": Global(floor=0)}
    searches = {
        "after": lab.search("after", controls=ABLATIONS, **how),
        **{
            method: lab.search(
                method,
                criterion=method,
                prune_at_init=True,
                controls=() if method == "random" else ABLATIONS,
                **how,
            )
            for method in BEFORE
        },
    }
    tables = lab.panels("accuracy", searches, FINAL)
    measured: dict[str, Values] = {}

    def above(one: str, other: str, density: float = 0.1) -> np.ndarray:
        both = (gain(tables[name], density, column=FINAL) for name in (one, other))
        return next(both) - next(both)

    for method in ("snip", "grasp", "synflow"):
        measured[f"{method} over random"] = above(method, "random", 0.02)
        measured[f"after over {method}"] = above("after", method)
    for method in ("after", "magnitude", "snip", "grasp", "synflow"):
        for ablation in ABLATIONS:
            measured[f"{method} over its {ablation}"] = gain(
                tables[method], 0.1, over=ablation, column=FINAL
            )
    return measured


def same(method: str, ablation: str, words: str) -> Claim:
    """The claim that an ablation does not change a method's accuracy."""
    return Claim(
        f"At 10 %, {method} with {words} is as accurate, or more",
        published="the same or higher",
        source="abstract",
        value=f"{method} over its {ablation}",
        reproduced=(-INFINITY, 0.2),
        unit="pp",
    )


EXPERIMENT = Experiment(
    "missing_the_mark",
    "Pruning before training: shuffled, reinitialised and inverted tickets",
    "Frankle et al. 2021, [Pruning neural networks at initialization: why are we "
    "missing the mark?](https://arxiv.org/abs/2009.08576)",
    lenet(
        cpu="144 trainings of 7,328 steps, about 17 minutes on 2 cores",
        paper="240 trainings of 50,000 steps",
        levels=2,
    ),
    run,
    (
        *(
            effect(
                f"At 2 %, {method} is more accurate than random pruning",
                published="more accurate",
                source="abstract",
                value=f"{method} over random",
                size=0,
                unit="pp",
            )
            for method in ("snip", "grasp", "synflow")
        ),
        *(
            effect(
                f"At 10 %, magnitude after training is more accurate than {method}",
                published="more accurate",
                source="abstract",
                value=f"after over {method}",
                size=0,
                unit="pp",
            )
            for method in ("snip", "grasp", "synflow")
        ),
        *(
            same(method, ablation, words)
            for method in ("magnitude", "snip", "grasp", "synflow")
            for ablation, words in {
                "shuffle": "masks shuffled within layers",
                "reinit": "reinitialised weights",
            }.items()
        ),
        # GraSP is left out: the paper reports that inverting it hardly matters.
        *(
            effect(
                f"At 10 %, {words} loses accuracy when inverted",
                published="loses accuracy (curves, from memory)",
                source="ablation by inversion",
                value=f"{method} over its invert",
                size=0,
                unit="pp",
            )
            for method, words in {
                "after": "magnitude after training",
                "magnitude": "magnitude before training",
                "snip": "snip",
                "synflow": "synflow",
            }.items()
        ),
        effect(
            "At 10 %, magnitude after training loses accuracy when shuffled",
            published="accuracy is not kept",
            source="abstract",
            value="after over its shuffle",
            size=0,
            unit="pp",
        ),
        effect(
            "At 10 %, magnitude after training loses accuracy when reinitialised",
            published="accuracy is not kept",
            source="abstract",
            value="after over its reinit",
            size=0,
            unit="pp",
        ),
    ),
)
