"""Lin et al.: filters are pruned in the order of the ranks of their feature maps."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from keras_lottery.keras_bridge.layers import State, set_state
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL
from keras_lottery.papers.experiments.scales import cifar_10, narrow_vgg
from keras_lottery.papers.experiments.smaller import by_way, draw, pruned, tune
from keras_lottery.pruning import masks_after
from keras_lottery.structured import (
    Filters,
    filter_criteria,
    multiply_adds,
    of_filters,
)

RATE = 0.3
"""The share of each layer's filters that is pruned, which is about half of the FLOPs.
"""
FEW, MANY = 100, 500
"""The numbers of images over which ranks are averaged."""
DROPS = (0.5, 0.75)
"""When the learning rate drops, as shares of a training."""

Score = Callable[[Filters], np.ndarray]


def reverse(filters: Filters) -> np.ndarray:
    """Keeps the filters whose maps have the lowest ranks."""
    return -filter_criteria.hrank(filters)


def share_of_non_zero(filters: Filters) -> np.ndarray:
    """The share of a filter's outputs that are not zero."""
    return filters.of_maps(lambda maps: (maps != 0).mean((1, 2))).mean(axis=0)


ORDERS = {
    "hrank": "hrank",
    "reverse": of_filters(reverse),
    "random": "random",
    "l1": "l1",
}
"""The criteria by which filters are pruned, by name."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Measures how stable ranks are, and prunes networks in several orders."""
    import pandas as pd

    trained = {
        replicate: lab.train(f"dense_{replicate}", replicate=replicate)
        for replicate in lab.replicates
    }
    images = lab.splits.x_train
    ranks = pd.DataFrame(
        {"replicate": replicate, **agreement(lab, dense.final, images)}
        for replicate, dense in trained.items()
    )
    lab.table("ranks", ranks.round(3))
    found = {
        (name, replicate): pruned(
            lab, dense.final, RATE, order, replicate, data=images[:MANY]
        )
        for name, order in ORDERS.items()
        for replicate, dense in trained.items()
    }
    table = tune(lab, found, DROPS)
    lab.table("orders", table.round(2))
    lab.figure("orders", draw(table))
    before, after = by_way(table, "before"), by_way(table, "after")
    dense = [100 * one.metrics[FINAL] for one in trained.values()]
    one = next(iter(found.values()))
    return {
        "FLOPs": 100 * multiply_adds(one.network) / multiply_adds(one.whole),
        "other images": ranks["other images"].to_numpy(),
        "non-zero outputs": ranks["non-zero outputs"].to_numpy(),
        "over dense": (after["hrank"] - dense).to_numpy(),
        "over reverse, not tuned": (before["hrank"] - before["reverse"]).to_numpy(),
        **{
            f"over {name}": (after["hrank"] - after[name]).to_numpy()
            for name in ORDERS
            if name != "hrank"
        },
    }


def agreement(lab: Lab, state: State, images: np.ndarray) -> dict[str, float]:
    """Spearman's correlation of ranks with those from other images, and with a proxy.

    The proxy is the share of a filter's outputs that are not zero.

    Args:
        lab: the lab in which the network was trained.
        state: the weights of the network.
        images: the training images.

    Returns:
        The means over layers, and how many layers are left out because all of their
        ranks are tied.
    """
    from scipy.stats import spearmanr

    few, many = images[:FEW], images[FEW : FEW + MANY]
    found = {
        "few": scores(lab, state, filter_criteria.hrank, few),
        "other images": scores(lab, state, filter_criteria.hrank, many),
        "non-zero outputs": scores(lab, state, share_of_non_zero, few),
    }
    ranks = found.pop("few")
    differ = [name for name, of_layer in ranks.items() if np.ptp(of_layer)]
    means = {
        name: float(np.mean([spearmanr(ranks[n], other[n])[0] for n in differ]))
        for name, other in found.items()
    }
    return {**means, "tied layers": len(ranks) - len(differ)}


def scores(lab: Lab, state: State, score: Score, x: np.ndarray) -> dict:
    """The scores of a network's filters, by layer."""
    found = {}

    def kept(filters: Filters) -> np.ndarray:
        found[filters.name] = score(filters)
        return found[filters.name]

    model, _ = lab.model()
    set_state(model, state)
    masks_after(model, RATE, of_filters(kept), granularity="filter", data=x)
    return found


def _scales() -> dict:
    scales = cifar_10(
        "resnet_56",
        "25 trainings of up to 63,882 steps, by Renda et al.'s recipe: hours on a GPU",
        levels=1,
        small=partial(models.vgg, (1, 1), 4),
    )
    cpu = narrow_vgg(
        "15 trainings of 1,000 and 4,000 steps, about 6 minutes on 2 cores",
        levels=1,
        drops=DROPS,
    )
    return {
        "smoke": scales["smoke"],
        "cpu": cpu,
        "paper": scales["paper"],
    }


EXPERIMENT = Experiment(
    "hrank",
    "Pruning filters by the ranks of their feature maps",
    "Lin et al. 2020, [HRank: filter pruning using high-rank feature map]("
    "https://arxiv.org/abs/2002.10179)",
    _scales(),
    run,
    (
        Claim(
            "Ranks from other images order a layer's filters in the same way "
            "(Spearman's correlation)",
            published="average ranks are always the same",
            source="abstract",
            value="other images",
            reproduced=(0.9, 1),
        ),
        Claim(
            "With about half of the FLOPs, accuracy is at most a point below the dense "
            "network's",
            published="93.17 against 93.26 %, 50.0 % fewer FLOPs (ResNet-56)",
            source="the authors' README; 93.26 % as others quote it",
            value="over dense",
            reproduced=(-1, INFINITY),
            unit="pp",
            sign=(-2, INFINITY),
        ),
        effect(
            "Before fine-tuning, keeping the filters of highest rank beats keeping "
            "those of lowest rank",
            published="better (figure, from memory)",
            source="the paper's variants",
            value="over reverse, not tuned",
            size=0,
            unit="pp",
        ),
        effect(
            "After fine-tuning, keeping the filters of highest rank beats keeping "
            "those of lowest rank",
            published="better (figure, from memory)",
            source="the paper's variants",
            value="over reverse",
            size=0,
            unit="pp",
        ),
        effect(
            "After fine-tuning, keeping the filters of highest rank beats keeping "
            "random ones",
            published="better (figure, from memory)",
            source="the paper's variants",
            value="over random",
            size=0,
            unit="pp",
        ),
        effect(
            "After fine-tuning, keeping the filters of highest rank beats keeping "
            "those of largest L1 norm",
            published="open",
            source="users of the authors' code found the contrary",
            value="over l1",
            size=0,
            unit="pp",
        ),
        Claim(
            "Ranks order filters in the same way as their shares of outputs that are "
            "not zero (Spearman's correlation)",
            published="open",
            source="no figure is known",
            value="non-zero outputs",
            reproduced=(0.8, 1),
        ),
    ),
)
