"""Liu et al.: does a ticket only win because training moves its weights too little?"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lottery.analysis import weight_correlation
from keras_lottery.experiments.admm import DROPS, admm, r_p
from keras_lottery.experiments.experiment import Claim, Experiment, Values, effect
from keras_lottery.experiments.figures import lines
from keras_lottery.experiments.frankle_carbin import ONE_SHOT
from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import FINAL, at, gain
from keras_lottery.experiments.networks import small_conv
from keras_lottery.experiments.scales import lenet, of_length
from keras_lottery.experiments.training import Trained
from keras_lottery.models import Recipe
from keras_lottery.rewind import FineTune, Rewind
from keras_lottery.search import LotteryTicketSearch

NETWORKS = {"LeNet": "lenet_300_100", "Small conv net": "small_conv"}
RATES = {"small": 0.01, "large": 0.1}
SHARES = (0.1, 0.2, 0.3, 0.5)
SPARSITIES = (0.5, 0.8, 0.9)
PASS = FineTune(steps=1, learning_rate=0.0)
WAYS: dict[str, dict[str, Any]] = {
    "iterative": {"rewind": "weights", "controls": ["reinit"]},
    "one_shot": {"rewind": ONE_SHOT, "controls": ["reinit"]},
    "fine_tuned": {"rewind": "fine_tune"},
    "one_shot_fine_tuned": {"rewind": Rewind(FineTune(), trunk=PASS)},
}


def run(lab: Lab) -> Mapping[str, Values]:
    """R_p of dense networks; tickets, reinitialised and fine-tuned, of equal epochs."""
    import pandas as pd

    parts, searches = [], {}
    for label, rate in RATES.items():
        recipe = dataclasses.replace(lab.recipe, learning_rate=rate)
        short = of_length(recipe, lab.recipe.steps // 4, lab.recipe.eval_freq, DROPS)
        for way, arguments in WAYS.items():
            searches[f"{way}_{label}"] = lab.search(
                f"{way}_{label}", recipe=recipe, schedule=SPARSITIES, **arguments
            )
        for replicate in lab.replicates:
            dense = searches[f"iterative_{label}"].ticket(0, replicate)
            assert dense.trained is not None
            conv = _conv(lab, label, short, replicate)
            for network, before, after in (
                ("lenet_300_100", dense.weights, dense.trained),
                ("small_conv", conv.states[0], conv.final),
            ):
                for p in SHARES:
                    part = weight_correlation(before, after, p)
                    where = {"network": network, "learning_rate": label, "p": p}
                    parts.append(part.assign(**where, replicate=replicate))
    # At the last learning rate, the large one; fine-tuned as long as at once.
    quick = Rewind(FineTune(round(lab.recipe.steps / len(SPARSITIES))))
    searches["quick_fine_tuned_large"] = lab.search(
        "quick_fine_tuned_large", recipe=recipe, schedule=SPARSITIES, rewind=quick
    )
    table = pd.concat(parts, ignore_index=True)
    lab.table("correlation", table)
    total = table[table["weight"] == "total"]
    label = "correlation of initial and final weights"
    lab.figure(
        "correlation",
        lines(total, "p", "correlation", label, "learning_rate", "network"),
    )
    at_20 = total[total["p"] == 0.2].groupby(["network", "learning_rate"])
    measured: dict[str, Values] = {
        f"{network} {label}": 100 * part["correlation"].to_numpy()
        for (network, label), part in at_20
    }
    small, large = (measured[f"lenet_300_100 {label}"] for label in RATES)
    measured["fall"] = np.subtract(small, large)
    found = lab.panels("accuracy", searches, FINAL)
    for label in RATES:
        tickets, tuned = found[f"iterative_{label}"], found[f"fine_tuned_{label}"]
        measured[f"over reinit {label}"] = gain(
            tickets, 0.2, over="reinit", column=FINAL
        )
        both = (gain(t, 0.2, column=FINAL) for t in (tuned, tickets))
        measured[f"tuned over ticket {label}"] = next(both) - next(both)
    iterative, one_shot = (
        100 * at(found[f"{way}_fine_tuned_large"], 0.1, FINAL)
        for way in ("quick", "one_shot")
    )
    pruned = by_admm(
        lab,
        searches["iterative_large"],
        {"lenet_300_100": recipe, "small_conv": short},
    )
    measured["ADMM over iterative"] = np.array(pruned["ADMM"]) - iterative
    measured["iterative over one-shot"] = iterative - one_shot
    return {**measured, **pruned}


def by_admm(
    lab: Lab, dense: LotteryTicketSearch, recipes: Mapping[str, Recipe]
) -> dict[str, list[float]]:
    """R_p of networks half pruned by ADMM, and the accuracy of LeNet of 10 %.

    Args:
        lab: where `run` trains.
        dense: a search whose dense networks are LeNet's.
        recipes: of each network.
    """
    measured = defaultdict(list)
    for replicate in lab.replicates:
        lenet_300_100 = dense.ticket(0, replicate)
        conv = _conv(lab, "large", recipes["small_conv"], replicate)
        for network, model, before, after in (
            ("lenet_300_100", None, lenet_300_100.weights, lenet_300_100.trained),
            ("small_conv", small_conv, conv.states[0], conv.final),
        ):
            assert after is not None
            recipe = recipes[network]
            pruned, masks = admm(lab, network, after, 0.5, replicate, recipe, model)
            for state, words in ((before, "initial"), (after, "trained")):
                value = r_p(state, pruned.final, masks)
                measured[f"{network} pruned, {words}"].append(value)
            if network == "lenet_300_100":
                pruned, _ = admm(lab, network, after, 0.9, replicate, recipe)
                measured["ADMM"].append(100 * pruned.metrics[FINAL])
    return measured


def _conv(lab: Lab, label: str, recipe: Recipe, replicate: int) -> Trained:
    """The small convolutional network, trained."""
    name = f"small_conv_{label}_{replicate}"
    return lab.train(name, replicate=replicate, recipe=recipe, model=small_conv)


EXPERIMENT = Experiment(
    "weight_correlation",
    "Initial and final weights correlate where tickets win",
    "Liu et al. 2021, [Lottery ticket preserves weight correlation](https://arxiv.org/"
    "abs/2102.11068)",
    lenet(
        cpu="168 trainings, most of 7,328 steps, about 22 minutes on 2 cores",
        paper="280 trainings, most of 50,000 steps",
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
                    f"{words}, large learning rate, half pruned by ADMM: R_p of the "
                    "initial weights is near 20 %",
                    "20.1 to 20.4 %",
                    "table 1 (ResNet-20 and others)",
                    *(f"{network} pruned, initial", (15, 26), "%"),
                ),
                Claim(
                    f"{words}: R_p of the trained weights is far above",
                    "48.08 to 64.71 %",
                    "table 1",
                    *(f"{network} pruned, trained", (34, 100), "%"),
                    sign=(20, 100),
                ),
            )
        ),
        Claim(
            "LeNet, small learning rate: R_p is well above 20 %",
            *("above (curves)", "section 3", "lenet_300_100 small", (30, 100), "%"),
            sign=(20, 100),
        ),
        effect(
            "LeNet: R_p is lower at the large learning rate",
            *("lower (curves)", "section 3", "fall", 0, "pp"),
        ),
        Claim(
            "Small conv net, small learning rate: R_p is well above 20 %",
            *("above (curves)", "section 3", "small_conv small", (30, 100), "%"),
            sign=(20, 100),
        ),
        effect(
            "Small learning rate, 80 % sparsity: the ticket beats its reinitialisation",
            *("it does", "section 3", "over reinit small", 0, "pp"),
        ),
        Claim(
            "Large learning rate: the ticket is no better than its reinitialisation",
            *("about equal", "section 3", "over reinit large", (-0.2, 0.2), "pp"),
        ),
        effect(
            "Large learning rate: fine-tuning beats the ticket, at equal epochs",
            *("it does", "section 4", "tuned over ticket large", 0, "pp"),
        ),
        effect(
            "Equal epochs, 90 %: ADMM is above pruning iteratively",
            *("above", "section 4", "ADMM over iterative", 0, "pp"),
        ),
        effect(
            "Equal epochs, 90 %: pruning iteratively is above one-shot",
            *("above", "section 4", "iterative over one-shot", 0, "pp"),
        ),
    ),
)
