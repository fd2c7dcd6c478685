"""Frankle et al.: tickets that are rewound to an early step of training."""

from collections.abc import Mapping, Sequence
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
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.linear_mode_connectivity import (
    STABLE,
    barrier_from,
)
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.scales import cifar_10, lenet, narrow_resnet
from keras_lottery.tickets.allocation import Global

PAPERS = (
    "Frankle et al. 2019, [Stabilizing the lottery ticket hypothesis]("
    "https://arxiv.org/abs/1903.01611), and 2020, [Linear mode connectivity and the "
    "lottery ticket hypothesis](https://arxiv.org/abs/1912.05671)"
)


def rewound(
    lab: Lab, shares: Sequence[float], density: float, **how: Any
) -> dict[str, Values]:
    """Searches with each rewind point, and measures how stable the tickets are.

    Args:
        lab: where to train.
        shares: the rewind points, as shares of a training.
        density: that of the tickets to compare.
        how: other arguments of `Lab.search`.

    Returns:
        For each rewind point, from the first: `"gain 0"` and so on, the gain over the
        dense network in percentage points, and `"instability 0"` and so on.
    """
    import pandas as pd

    steps = lab.recipe.steps
    points = [max(i, round(share * steps)) for i, share in enumerate(shares)]
    searches = {
        f"from_{k}": lab.search(f"from_{k}", rewind_to=k, **how) for k in points
    }
    tables = lab.panels("accuracy", searches, FINAL)
    rows = []
    for k, search in zip(points, searches.values(), strict=True):
        for replicate in lab.replicates:
            ticket = search.ticket(lab.scale.levels, replicate)
            place = f"copy_from_{k}_{replicate}", ticket.weights, ticket.masks, k
            barrier = barrier_from(lab, *place, replicate)
            rows.append((k, ticket.masks.density, replicate, barrier))
    names = ["rewind_point", "density", "replicate", "instability"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("instability", table)
    label = "instability (pp of error)"
    lab.figure("instability", lines(table, "rewind_point", "instability", label))
    measured: dict[str, Values] = {}
    for index, (k, results) in enumerate(zip(points, tables.values(), strict=True)):
        stable = table[table["rewind_point"] == k]["instability"].to_numpy()
        measured[f"instability {index}"] = stable
        measured[f"gain {index}"] = gain(results, density, column=FINAL)
    return measured


def lenet_300_100(lab: Lab) -> Mapping[str, Values]:
    """Rewinds LeNet-300-100 to the start, and to 1 and 5 % of the training."""
    measured = rewound(lab, (0.0, 0.0137, 0.055), 0.0635, rate=0.5)
    late = np.subtract(measured["gain 0"], measured["gain 2"])
    return {**measured, "start over late": late}


def resnet_20(lab: Lab) -> Mapping[str, Values]:
    """Rewinds ResNet-20, or a smaller one, to the start and to at most step 2000."""
    steps = lab.recipe.steps
    late = min(2000, steps // 8)
    rate = 1 - 0.134 ** (1 / lab.scale.levels)
    how = {"rate": rate, "allocation": Global(floor=0)}
    return rewound(lab, (0.0, late / steps), 0.134, **how)


LENET_300_100 = Experiment(
    "stabilizing",
    "Tickets of LeNet-300-100, rewound to the start and to later steps",
    PAPERS,
    lenet(
        cpu="63 trainings of 7,328 steps, about 8 minutes on 2 cores",
        paper="105 trainings of 50,000 steps",
        levels=4,
    ),
    lenet_300_100,
    (
        Claim(
            "Tickets of 6 % rewound to the start are as accurate as those rewound to "
            "step 403",
            published="matching from the start",
            source="2020, section 4.3, figure 5",
            value="start over late",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        Claim(
            "Rewound to the start, tickets of 6 % are stable",
            published="stable from the start",
            source="2020, section 4.3, figure 5",
            value="instability 0",
            reproduced=STABLE,
            unit="pp",
        ),
    ),
)
RESNET_20 = Experiment(
    "stabilizing_resnet_20",
    "Tickets of ResNet-20, rewound to the start and to step 2000",
    PAPERS,
    # The length fits the 2020 paper, in which 500 steps are 0.8 % of the training; the
    # learning rate and its drops are from memory.
    {
        **cifar_10(
            "resnet_20",
            "120 trainings of 61,000 to 63,000 steps, hours on a GPU",
            levels=9,
            small=partial(models.resnet, 8),
            learning_rate=0.1,
            steps=63_000,
            drops=(32_000, 48_000),
        ),
        "cpu": narrow_resnet(
            "36 trainings of 3,500 to 4,000 steps, about half an hour on 2 cores",
            levels=3,
            drops=(32 / 63, 48 / 63),
        ),
    },
    resnet_20,
    (
        Claim(
            "Rewound to the start, tickets of 13 % are not stable",
            published="stable from step 500 on",
            source="2020, section 4.3",
            value="instability 0",
            reproduced=(2, INFINITY),
            unit="pp",
            sign=(2, INFINITY),
        ),
        Claim(
            "Rewound to step 2000 (500 at scale cpu), tickets of 13 % are stable",
            published="stable from step 500 on",
            source="2020, section 4.3",
            value="instability 1",
            reproduced=STABLE,
            unit="pp",
        ),
        Claim(
            "Rewound to the start, tickets of 13 % are below the dense network",
            published="they do not match",
            source="2020, section 4.3, figure 5",
            value="gain 0",
            reproduced=(-INFINITY, -0.2),
            unit="pp",
            sign=(-INFINITY, 0),
        ),
        Claim(
            "Rewound to that step, tickets of 13 % match the dense network",
            published="they match from 80.0 to 13.4 %",
            source="2020, section 4.4, figure 9",
            value="gain 1",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
    ),
)
EXPERIMENTS = (LENET_300_100, RESNET_20)
