"""He et al.: pruning filters near their layer's geometric median, or of small norm."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import numpy as np

from keras_lottery.in_fit.callbacks import SoftFilterPruning
from keras_lottery.keras_bridge.layers import State
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL
from keras_lottery.papers.experiments.scales import cifar_10, narrow_resnet, of_length
from keras_lottery.papers.experiments.smaller import Pruned, by_way, draw, pruned, tune

RATE = 0.3
"""The share of each layer's filters that is pruned, which is about half of the FLOPs.
"""
DROPS = (0.3, 0.6, 0.8)
"""When the learning rate drops, as shares of a training: epochs 60, 120, 160 of 200."""
CRITERIA = ("l2", "fpgm", "random")


def run(lab: Lab) -> Mapping[str, Values]:
    """Prunes networks by norms and by distances, after their training and during it."""
    import pandas as pd

    found: dict[tuple[str, int], Pruned] = {}
    dense, rows = [], []
    for replicate in lab.replicates:
        trained = lab.train(f"dense_{replicate}", replicate=replicate)
        dense.append(100 * trained.metrics[FINAL])
        equal = with_equal_norms(trained.final)
        rows.append(
            {
                "replicate": replicate,
                "dense": dense[-1],
                "spread of norms": spread(trained.final),
                "of equal norms": spread(equal),
            }
        )
        for criterion in CRITERIA:
            starts = {"": trained.final, "equal norms, ": equal}
            for prefix, state in starts.items():
                found[f"{prefix}{criterion}", replicate] = pruned(
                    lab, state, RATE, criterion, replicate
                )
        for criterion in ("l2", "fpgm"):
            soft = lab.train(
                f"soft_{criterion}_{replicate}",
                replicate=replicate,
                callbacks=[SoftFilterPruning(RATE, criterion)],
            )
            # The filters that are zero after soft pruning have the smallest norms.
            found[f"in training, {criterion}", replicate] = pruned(
                lab, soft.final, RATE, "l2", replicate
            )
    lab.table("norms", pd.DataFrame(rows).round(3))
    table = tune(lab, found, DROPS)
    lab.table("fpgm", table.round(2))
    lab.figure("fpgm", draw(table))
    before, after = by_way(table, "before"), by_way(table, "after")

    def over(column: str, other: str, stage: pd.DataFrame = after) -> np.ndarray:
        return (stage[column] - stage[other]).to_numpy()

    return {
        "spread of norms": [row["spread of norms"] for row in rows],
        "over l2, not tuned": over("fpgm", "l2", before),
        "over l2": over("fpgm", "l2"),
        "over dense": (after["fpgm"] - dense).to_numpy(),
        "l2 over random": over("equal norms, l2", "equal norms, random", before),
        "equal over l2": over("equal norms, fpgm", "equal norms, l2", before),
        "soft over l2": over("in training, fpgm", "in training, l2"),
        "soft over dense": (after["in training, fpgm"] - dense).to_numpy(),
    }


def normalised(state: State) -> dict[str, str]:
    """The normalisation that follows each convolution, by names of layers.

    >>> normalised({"conv_1/kernel": 0, "shortcut_1/kernel": 0, "output/kernel": 0})
    {'conv_1': 'norm_1', 'shortcut_1': 'shortcut_norm_1'}
    """
    prefixes = {"conv_": "norm_", "shortcut_": "shortcut_norm_"}
    return {
        layer: prefix.join(["", layer.removeprefix(start)])
        for layer, kind in (name.rsplit("/", 1) for name in state)
        for start, prefix in prefixes.items()
        if kind == "kernel" and layer.startswith(start)
    }


def norms(state: State, layer: str) -> np.ndarray:
    """The norm of each filter of a convolution."""
    return np.sqrt(np.square(state[f"{layer}/kernel"]).sum((0, 1, 2)))


def spread(state: State) -> float:
    """The standard deviation of norms divided by their mean, averaged over layers."""
    every = [norms(state, layer) for layer in normalised(state)]
    return float(np.mean([one.std() / one.mean() for one in every]))


def with_equal_norms(state: State) -> State:
    """The same network, with each filter scaled to the mean norm of its layer.

    The outputs stay the same, because the mean and the variance of the normalisation
    that follows are scaled as well.
    """
    made = dict(state)
    for layer, norm in normalised(state).items():
        own = norms(state, layer)
        scale = own.mean() / np.maximum(own, 1e-12)
        for name, factor in (
            (f"{layer}/kernel", scale),
            (f"{norm}/moving_mean", scale),
            (f"{norm}/moving_variance", scale**2),
        ):
            made[name] = (state[name] * factor).astype(state[name].dtype)
    return made


def _scales() -> dict[str, Scale]:
    steps = 6 * 703
    cpu = narrow_resnet(
        "33 trainings: 9 of 4,218 steps and 24 of 1,054, about 25 minutes on 2 cores",
        levels=1,
    )
    others = cifar_10(
        "resnet_56",
        "55 trainings of up to 63,882 steps, by Renda et al.'s recipe: days on a GPU",
        levels=1,
        small=partial(models.vgg, (1, 1), 4),
    )
    # The training consists of whole epochs, because filters are chosen after each.
    recipe = of_length(cpu.recipe, steps, 703, DROPS)
    return {
        "smoke": others["smoke"],
        "cpu": dataclasses.replace(cpu, recipe=recipe),
        "paper": others["paper"],
    }


EXPERIMENT = Experiment(
    "fpgm",
    "Pruning the filters near their layer's geometric median, or those of small norm",
    "He et al. 2019, [Filter pruning via geometric median for deep convolutional "
    "neural networks acceleration](https://arxiv.org/abs/1811.00250)",
    _scales(),
    run,
    (
        effect(
            "Before fine-tuning, pruning by distances beats pruning by norms",
            published="80.38 against 77.45 % (VGG-16, L1)",
            source="table 3",
            value="over l2, not tuned",
            size=2.93,
            unit="pp",
        ),
        effect(
            "After fine-tuning, pruning by distances beats pruning by norms",
            published="94.00 against 93.28 % (VGG-16, L1, 160 epochs)",
            source="table 3",
            value="over l2",
            size=0,
            unit="pp",
        ),
        Claim(
            "Pruned by distances after training, and fine-tuned, the network with "
            "about half of the FLOPs is at most a point below the dense one",
            published="93.49 against 93.59 %, 52.6 % fewer FLOPs (ResNet-56)",
            source="table 1",
            value="over dense",
            reproduced=(-1, INFINITY),
            unit="pp",
            sign=(-2, INFINITY),
        ),
        effect(
            "After soft pruning in training and fine-tuning, distances beat norms",
            published="92.93 against 92.26 % (ResNet-56), without fine-tuning",
            source="table 1",
            value="soft over l2",
            size=0,
            unit="pp",
        ),
        Claim(
            "Where all filters of a layer have the same norm, pruning by norms is as "
            "good as pruning at random",
            published="norms that differ little are a poor guide",
            source="section 3.2",
            value="l2 over random",
            reproduced=(-3, 3),
            unit="pp",
        ),
        effect(
            "Where all filters of a layer have the same norm, pruning by distances "
            "beats pruning by norms, before fine-tuning",
            published="open",
            source="section 1 says so, without a figure",
            value="equal over l2",
            size=0,
            unit="pp",
        ),
    ),
)
