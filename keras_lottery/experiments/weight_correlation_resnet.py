"""Liu et al.: the same questions of ResNet-20, as in the paper."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from keras_lottery import models
from keras_lottery.allocation import Uniform
from keras_lottery.analysis import weight_correlation
from keras_lottery.experiments.experiment import Claim, Experiment, Values, effect
from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import FINAL, at, gain
from keras_lottery.experiments.scales import cifar_10
from keras_lottery.experiments.weight_correlation import EXPERIMENT as ON_LENET
from keras_lottery.experiments.weight_correlation import PRUNED, RATES
from keras_lottery.search import LotteryTicketSearch

EPOCH = 351
"""Steps in an epoch of 45,000 images in batches of 128."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Tickets, reinitialised and fine-tuned, at two learning rates; R_p."""
    depth = 20 if lab.scale.is_faithful else 8
    how: dict[str, Any] = {
        "model": partial(models.resnet, depth, augment=lab.scale.is_faithful),
        "schedule": (0.38, 0.62, 0.7),
        "allocation": Uniform(exclude=("conv_1",)),
    }
    searches = {}
    correlations: dict[str, Values] = {}
    for label, rate in RATES.items():
        how["recipe"] = dataclasses.replace(lab.recipe, learning_rate=rate)
        tickets = lab.search(label, controls=["reinit"], **how)
        searches[label] = tickets
        searches[f"{label}_tuned"] = lab.search(
            f"{label}_tuned", rewind="fine_tune", **how
        )
        correlations[f"R_p {label}"] = [_r_p(tickets, r) for r in lab.replicates]
    tables = lab.panels("accuracy", searches, FINAL)
    return correlations | {
        "dense small": 100 * at(tables["small"], 1.0, FINAL),
        "dense large": 100 * at(tables["large"], 1.0, FINAL),
        "small": gain(tables["small"], 0.38, over="reinit", column=FINAL),
        "large": gain(tables["large"], 0.38, over="reinit", column=FINAL),
        "tuned": gain(tables["large_tuned"], 0.3, column=FINAL),
    }


def _r_p(search: LotteryTicketSearch, replicate: int) -> float:
    """R_p of a dense network's first and last weights, for p = 20 %, in %."""
    dense = search.ticket(0, replicate)
    assert dense.trained is not None
    table = weight_correlation(dense.weights, dense.trained, 0.2, dense.masks)
    return 100 * float(table["correlation"].iloc[-1])


EXPERIMENT = Experiment(
    "weight_correlation_resnet",
    "Initial and final weights of ResNet-20, by learning rate",
    ON_LENET.paper,
    cifar_10(
        "resnet_20",
        "110 trainings of 52,650 steps, hours on a GPU",
        levels=3,
        report=(1, 2, 3),
        steps=150 * EPOCH,
        drops=(80 * EPOCH, 120 * EPOCH),
    ),
    run,
    (
        Claim(
            "The dense network's accuracy at learning rate 0.01",
            *("89.62 %", "section 3", "dense small", (88.62, 90.62), "%"),
        ),
        Claim(
            "and at 0.1",
            *("91.7 %", "section 3", "dense large", (90.7, 92.7), "%"),
        ),
        Claim(
            "At 0.1, R_p of initial and final weights, not pruned, is near p = 20 %",
            *(PRUNED, "table 1", "R_p large", (18, 26), "%"),
        ),
        Claim(
            "At 0.01, it is well above",
            *("above (curves)", "section 3", "R_p small", (30, 100), "%"),
            sign=(20, 100),
        ),
        effect(
            "At 0.01, the ticket of 62 % sparsity beats its reinitialisation",
            *("it does", "section 3", "small", 0, "pp"),
        ),
        Claim(
            "At 0.1, it is about as accurate",
            *("about equal", "section 3", "large", (-0.3, 0.3), "pp"),
        ),
        effect(
            "At 0.1, fine-tuned at 70 % sparsity it beats the dense network",
            *("it does", "section 4", "tuned", 0, "pp"),
        ),
    ),
)
