"""Liu et al.: do tickets win only because training moves the weights too little?"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery.keras_bridge.layers import State
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.fine_tuning import DROPS, admm, fine_tune, r_p
from keras_lottery.papers.experiments.frankle_carbin import ONE_SHOT
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, LABELS, at
from keras_lottery.papers.experiments.networks import small_conv
from keras_lottery.papers.experiments.scales import lenet, of_length
from keras_lottery.papers.experiments.training import Trained
from keras_lottery.papers.models import Recipe
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.study.analysis import weight_correlation
from keras_lottery.tickets.allocation import Layerwise

if TYPE_CHECKING:
    import pandas as pd

NETWORKS = {"LeNet": "lenet_300_100", "Small conv net": "small_conv"}
RATES = {"small": 0.01, "large": 0.1}
SHARES = (0.1, 0.2, 0.3, 0.5)
SPARSITIES = (0.5, 0.8, 0.9)
WAYS: dict[str, Any] = {"iterative": "weights", "one_shot": ONE_SHOT}
Searches = Mapping[tuple[str, str], LotteryTicketSearch]
"""By learning rate and way of pruning."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Measures R_p of dense and pruned networks; compares tickets with fine-tuning."""
    searches = {
        (rate, way): lab.search(
            f"{way}_{rate}",
            recipe=at_rate(lab.recipe, rate),
            schedule=SPARSITIES,
            rewind=rewind,
            controls=["reinit"],
        )
        for rate in RATES
        for way, rewind in WAYS.items()
    }
    measured = {**correlations(lab, searches), **pruned_correlations(lab, searches)}
    table = accuracies(lab, searches)

    def above(rate: str, one: str, other: str, density: float) -> np.ndarray:
        part = table[table["learning_rate"] == rate]
        values = (at(part, density, "accuracy", name) for name in (one, other))
        return np.subtract(*values)

    tuned, one_shot, by_admm = (
        f"{way}, fine-tuned" for way in ("iterative", "one_shot", "ADMM")
    )
    return {
        **measured,
        "over reinit small": above("small", "iterative", "iterative, reinit", 0.2),
        "over reinit large": above("large", "iterative", "iterative, reinit", 0.2),
        "tuned over ticket": above("large", tuned, "iterative", 0.2),
        "ADMM over iterative": above("large", by_admm, tuned, 0.1),
        "iterative over one-shot": above("large", tuned, one_shot, 0.1),
    }


def at_rate(recipe: Recipe, rate: str) -> Recipe:
    """The recipe at the small or the large learning rate."""
    return dataclasses.replace(recipe, learning_rate=RATES[rate])


def correlations(lab: Lab, searches: Searches) -> dict[str, Values]:
    """R_p between the initial and the trained weights of dense networks."""
    import pandas as pd

    parts = []
    for rate in RATES:
        for replicate in lab.replicates:
            dense = searches[rate, "iterative"].ticket(0, replicate)
            assert dense.trained is not None
            conv = _conv(lab, rate, replicate)
            for network, before, after in (
                ("lenet_300_100", dense.weights, dense.trained),
                ("small_conv", conv.states[0], conv.final),
            ):
                for p in SHARES:
                    part = weight_correlation(before, after, p)
                    where = {"network": network, "learning_rate": rate, "p": p}
                    parts.append(part.assign(**where, replicate=replicate))
    table = pd.concat(parts, ignore_index=True)
    lab.table("correlation", table)
    total = table[table["weight"] == "total"]
    label = "correlation of initial and final weights"
    lab.figure(
        "correlation",
        lines(total, "p", "correlation", label, "learning_rate", "network"),
    )
    at_20 = total[total["p"] == 0.2].groupby(["network", "learning_rate"])
    measured = {
        f"{network} {rate}": 100 * part["correlation"].to_numpy()
        for (network, rate), part in at_20
    }
    small, large = (measured[f"lenet_300_100 {rate}"] for rate in RATES)
    return {**measured, "fall": small - large}


def pruned_correlations(lab: Lab, searches: Searches) -> dict[str, Values]:
    """R_p of networks that ADMM pruned by half, after fine-tuning at the large rate."""
    search, recipe = searches["large", "iterative"], at_rate(lab.recipe, "large")
    convs = {r: _conv(lab, "large", r) for r in lab.replicates}
    initial = {r: search.initial(r) for r in lab.replicates}
    of_conv = (
        {r: conv.states[0] for r, conv in convs.items()},
        {r: conv.final for r, conv in convs.items()},
    )
    measured: dict[str, Values] = {}
    for network, model, how, before, after in (
        ("lenet_300_100", None, recipe, initial, dense_trained(lab, search)),
        ("small_conv", small_conv, _short(recipe), *of_conv),
    ):
        allocation = Layerwise(lab.recipe.rates)
        masks = admm(lab, network, after, 0.5, how, allocation, model)
        tuned = fine_tune(lab, f"{network}_admm_50", after, masks, how, model)
        for states, words in ((before, "initial"), (after, "trained")):
            measured[f"{network} pruned, {words}"] = [
                r_p(states[r], tuned[r].final) for r in lab.replicates
            ]
    return measured


def dense_trained(lab: Lab, search: LotteryTicketSearch) -> dict[int, State]:
    """The weights of a search's dense networks after training, by replicate."""
    return {r: search.trained(0, r) for r in lab.replicates}


def accuracies(lab: Lab, searches: Searches) -> "pd.DataFrame":
    """Accuracies of tickets, of reinitialised ones, and of fine-tuned weights."""
    import pandas as pd

    rows = []
    for (rate, way), search in searches.items():
        recipe = at_rate(lab.recipe, rate)
        for _, row in search.results().iterrows():
            variant = way if row["variant"] == "ticket" else f"{way}, {row['variant']}"
            where = row["density"], row["replicate"]
            rows.append((rate, variant, *where, 100 * row[FINAL]))
        dense = dense_trained(lab, search)
        found = {
            f"{way}_{rate}_{level}": {r: search.masks(level, r) for r in dense}
            for level in range(1, len(SPARSITIES) + 1)
        }
        if (rate, way) == ("large", "iterative"):
            how = recipe, Layerwise(lab.recipe.rates)
            found["admm_90"] = admm(lab, "lenet_300_100", dense, 0.9, *how)
        for name, masks in found.items():
            variant = f"{'ADMM' if name == 'admm_90' else way}, fine-tuned"
            for r, tuned in fine_tune(lab, name, dense, masks, recipe).items():
                accuracy = 100 * tuned.metrics[FINAL]
                rows.append((rate, variant, masks[r].density, r, accuracy))
    names = ["learning_rate", "variant", "density", "replicate", "accuracy"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("accuracy", table)
    sparse = table[table["density"] < 1]
    panels = "variant", "learning_rate"
    lab.figure("accuracy", lines(sparse, "density", "accuracy", LABELS[FINAL], *panels))
    return table


def _short(recipe: Recipe) -> Recipe:
    """The recipe for a quarter of the steps, as convolutions are slow."""
    return of_length(recipe, recipe.steps // 4, recipe.eval_freq, DROPS)


def _conv(lab: Lab, rate: str, replicate: int) -> Trained:
    """The small convolutional network, trained."""
    recipe = _short(at_rate(lab.recipe, rate))
    name = f"small_conv_{rate}_{replicate}"
    return lab.train(name, replicate=replicate, recipe=recipe, model=small_conv)


EXPERIMENT = Experiment(
    "weight_correlation",
    "Initial and final weights correlate where tickets win",
    "Liu et al. 2021, [Lottery ticket preserves weight correlation](https://arxiv.org/"
    "abs/2102.11068)",
    lenet(
        cpu="144 trainings, most of 7,328 steps, about 20 minutes on 2 cores",
        paper="240 trainings, most of 50,000 steps",
        levels=3,
        optimizer="sgd",
        momentum=0.9,
        drops=DROPS,
    ),
    run,
    (
        *(
            claim
            for words, network in NETWORKS.items()
            for claim in (
                Claim(
                    f"{words}, large learning rate, pruned by half with ADMM: R_p with "
                    "the initial weights is near 20 %",
                    published="20.11 to 20.41 % (larger networks)",
                    source="appendix F, table 1",
                    value=f"{network} pruned, initial",
                    reproduced=(18, 23),
                    unit="%",
                ),
                Claim(
                    f"{words}: R_p with the trained weights is far higher",
                    published="48.08 to 64.71 % (larger networks)",
                    source="appendix F, table 1",
                    value=f"{network} pruned, trained",
                    reproduced=(34, INFINITY),
                    unit="%",
                    sign=(20, INFINITY),
                ),
            )
        ),
        Claim(
            "LeNet, small learning rate: R_p is well above 20 %",
            published="notably higher than at 0.1 (curves, ResNet-20)",
            source="section 4.3, figure 4",
            value="lenet_300_100 small",
            reproduced=(30, INFINITY),
            unit="%",
            sign=(20, INFINITY),
        ),
        Claim(
            "LeNet, large learning rate: R_p is near 20 %",
            published="about 20 % (ResNet-20)",
            source="section 4.3, figure 4",
            value="lenet_300_100 large",
            reproduced=(15, 25),
            unit="%",
        ),
        effect(
            "LeNet: R_p is lower at the large learning rate",
            published="lower (curves, ResNet-20)",
            source="section 4.3, figure 4",
            value="fall",
            size=0,
            unit="pp",
        ),
        Claim(
            "Small conv net, small learning rate: R_p is well above 20 %",
            published="notably higher than at 0.1 (curves, ResNet-20)",
            source="section 4.3, figure 4",
            value="small_conv small",
            reproduced=(30, INFINITY),
            unit="%",
            sign=(20, INFINITY),
        ),
        effect(
            "Small learning rate, 80 % sparsity: tickets beat reinitialised ones",
            published="they do (ResNet-20)",
            source="section 4.1, figure 2",
            value="over reinit small",
            size=0,
            unit="pp",
        ),
        Claim(
            "Large learning rate, 80 % sparsity: tickets and reinitialised ones are "
            "about as accurate",
            published="similar (ResNet-20)",
            source="section 4.1, figure 2",
            value="over reinit large",
            reproduced=(-0.2, 0.2),
            unit="pp",
        ),
        effect(
            "Large learning rate, 80 % sparsity: fine-tuned weights in a ticket's "
            "masks "
            "beat the ticket",
            published="they do (ResNet-20)",
            source="section 5, figure 6",
            value="tuned over ticket",
            size=0,
            unit="pp",
        ),
        effect(
            "Fine-tuned at 90 % sparsity, masks of ADMM beat those of iterative "
            "pruning",
            published="they do (ResNet-20)",
            source="section 5, figure 7",
            value="ADMM over iterative",
            size=0,
            unit="pp",
        ),
        effect(
            "Fine-tuned at 90 % sparsity, masks of iterative pruning beat one-shot "
            "masks",
            published="they do (ResNet-20)",
            source="section 5, figure 7",
            value="iterative over one-shot",
            size=0,
            unit="pp",
        ),
    ),
)
