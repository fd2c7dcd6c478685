"""Liu et al.: weight correlation in the paper's own networks, on CIFAR-10."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.fine_tuning import DROPS, admm, fine_tune, r_p
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, LABELS, at
from keras_lottery.papers.experiments.scales import (
    cifar_10,
    narrow_mobilenet,
    narrow_resnet,
    narrow_vgg,
)
from keras_lottery.papers.experiments.weight_correlation import EXPERIMENT as ON_LENET
from keras_lottery.papers.experiments.weight_correlation import (
    RATES,
    at_rate,
    dense_trained,
)
from keras_lottery.papers.models import Builder, Recipe
from keras_lottery.papers.models.deep import EPOCH
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.tickets.allocation import Allocation, Uniform

if TYPE_CHECKING:
    import pandas as pd


def resnet_20(lab: Lab) -> Mapping[str, Values]:
    """ResNet-20 or a smaller one: tickets, and pruning and fine-tuning beside them."""
    allocation = Uniform(exclude=("conv_1",))
    sparsities = (0.62, 0.8) if lab.scale.levels == 2 else (0.38, 0.62, 0.7, 0.8)
    measured, searches = correlate(lab, sparsities, allocation)
    table = accuracies(lab, searches, sparsities[-1], allocation)

    def above(
        rate: str, one: tuple[str, float], other: tuple[str, float]
    ) -> np.ndarray:
        part = table[table["learning_rate"] == rate]
        values = (at(part, density, "accuracy", name) for name, density in (one, other))
        return np.subtract(*values)

    for percent in (62, 80):
        density = 1 - percent / 100
        ticket, reinit, tuned = (
            (variant, density)
            for variant in ("ticket", "reinit", "iterative, fine-tuned")
        )
        for rate in RATES:
            measured[f"{rate} {percent}"] = above(rate, ticket, reinit)
        measured[f"less at large {percent}"] = np.subtract(
            measured[f"small {percent}"], measured[f"large {percent}"]
        )
        measured[f"tuned over ticket {percent}"] = above("large", tuned, ticket)
        measured[f"tuned over reinit {percent}"] = above("large", tuned, reinit)
    dense = "ticket", 1.0
    tuned, one_shot, by_admm = (
        (f"{way}, fine-tuned", 0.2) for way in ("iterative", "one-shot", "ADMM")
    )
    measured["tuned 70"] = above("large", ("iterative, fine-tuned", 0.3), dense)
    measured["ADMM"] = above("large", by_admm, dense)
    measured["ADMM over iterative"] = above("large", by_admm, tuned)
    measured["iterative over one-shot"] = above("large", tuned, one_shot)
    return measured


def vgg_11(lab: Lab) -> Mapping[str, Values]:
    """VGG-11 or a smaller one."""
    return _alone(lab, "conv_1")


def mobilenet_v2(lab: Lab) -> Mapping[str, Values]:
    """MobileNet-V2 or a smaller one."""
    return _alone(lab, "stem")


def _alone(lab: Lab, first: str) -> Mapping[str, Values]:
    measured, searches = correlate(lab, (0.5,), Uniform(exclude=(first,)))
    lab.panels("accuracy", searches, FINAL)
    return measured


def recipes(lab: Lab) -> dict[str, Recipe]:
    """The recipe at each learning rate."""
    return {label: at_rate(lab.recipe, label) for label in RATES}


def correlate(
    lab: Lab, sparsities: Sequence[float], allocation: Allocation
) -> tuple[dict[str, Any], dict[str, LotteryTicketSearch]]:
    """Searches at each learning rate, with reinitialised controls; measures R_p.

    Args:
        lab: where to train.
        sparsities: those of the tickets.
        allocation: how each sparsity is spread over the layers. The first convolution
            is not pruned.

    Returns:
        The measured values, and the searches by learning rate.
    """
    measured: dict[str, Any] = {}
    searches = {}
    for label, recipe in recipes(lab).items():
        search = lab.search(
            label,
            controls=["reinit"],
            recipe=recipe,
            schedule=sparsities,
            allocation=allocation,
        )
        searches[label] = search
        accuracy = 100 * at(search.results(), 1.0, FINAL)
        # The published ones are those of larger networks.
        measured[f"dense {label}"] = np.nan if lab.scale.is_narrow else accuracy
        measured[f"R_p {label}"] = [
            r_p(search.initial(r), search.trained(0, r)) for r in lab.replicates
        ]
    search, recipe = searches["large"], recipes(lab)["large"]
    dense = dense_trained(lab, search)
    masks = admm(lab, "large", dense, 0.5, recipe, allocation)
    tuned = fine_tune(lab, "large_admm_50", dense, masks, recipe)
    ends = {"initial": {r: search.initial(r) for r in dense}, "trained": dense}
    for words, states in ends.items():
        measured[f"pruned, {words}"] = [r_p(states[r], tuned[r].final) for r in dense]
    return measured, searches


def accuracies(
    lab: Lab,
    searches: Mapping[str, LotteryTicketSearch],
    highest: float,
    allocation: Allocation,
) -> "pd.DataFrame":
    """Accuracies of tickets, of reinitialised ones, and of fine-tuned trained weights.

    The masks for fine-tuning are those of the tickets, found iteratively; at the
    highest sparsity also one-shot masks and, at the large rate, those of ADMM.

    Args:
        lab: where to train.
        searches: by learning rate.
        highest: the sparsity of the last level.
        allocation: how each sparsity is spread over the layers.

    Returns:
        A row for each training: `learning_rate`, `variant`, `density`, `replicate` and
        `accuracy`, in %.
    """
    import pandas as pd

    rows = []
    for rate, search in searches.items():
        recipe, dense = recipes(lab)[rate], dense_trained(lab, search)
        for row in search.results().itertuples():
            where = row.density, row.replicate
            rows.append((rate, row.variant, *where, 100 * getattr(row, FINAL)))
        found = [
            ("iterative", {r: search.masks(level, r) for r in dense})
            for level in range(1, lab.scale.levels + 1)
        ]
        every = search.masks(0)
        one_shot = {
            r: allocation({n: np.abs(state[n]) for n in every}, every, highest)
            for r, state in dense.items()
        }
        found.append(("one-shot", one_shot))
        if rate == "large":
            masks = admm(lab, "large", dense, highest, recipe, allocation)
            found.append(("ADMM", masks))
        for index, (way, masks) in enumerate(found, start=1):
            name = f"{rate}_{way}_{index}"
            tuned = fine_tune(lab, name, dense, masks, recipe)
            variant = f"{way}, fine-tuned"
            for r, training in tuned.items():
                accuracy = 100 * training.metrics[FINAL]
                rows.append((rate, variant, masks[r].density, r, accuracy))
    names = ["learning_rate", "variant", "density", "replicate", "accuracy"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("accuracy", table)
    panels = "variant", "learning_rate"
    sparse = table[table["density"] < 1]
    lab.figure("accuracy", lines(sparse, "density", "accuracy", LABELS[FINAL], *panels))
    return table


def experiment(
    model: str,
    title: str,
    run: Callable[[Lab], Mapping[str, Values]],
    trainings: int,
    published: tuple[float, float, str],
    levels: int = 1,
    small: Builder | None = None,
    accuracies: Sequence[float] = (),
    accuracies_in: str = "section 4.1",
    claims: Sequence[Claim] = (),
    others: Mapping[str, Scale] | None = None,
) -> Experiment:
    """The experiment of one network.

    Args:
        model: its name in `models`.
        title: its name in words.
        run: same as in `Experiment`.
        trainings: their number at the paper's scale.
        published: the published R_p, in %, of the weights that ADMM pruned by half,
            with the initial and with the trained weights, and the data set that it was
            measured on.
        levels: rounds of pruning at the paper's scale.
        small: a smaller network of its kind, for the smoke scale.
        accuracies: the published ones of the dense network, by learning rate.
        accuracies_in: where they were published.
        claims: further claims.
        others: scales besides `"smoke"` and `"paper"`.
    """
    of_dense = zip(RATES.items(), accuracies, strict=False)
    r_initial, r_trained, data = published
    return Experiment(
        f"weight_correlation_{model}",
        f"Initial and final weights of {title}, by learning rate",
        ON_LENET.paper,
        {
            **cifar_10(
                model,
                f"{trainings} trainings, most of 52,650 steps, hours on a GPU",
                levels=levels,
                smoke="minutes",
                small=small,
                steps=150 * EPOCH,
                drops=(80 * EPOCH, 120 * EPOCH),
            ),
            **(others or {}),
        },
        run,
        (
            *(
                Claim(
                    f"Accuracy of the dense network at learning rate {rate}",
                    published=f"{accuracy} %",
                    source=accuracies_in,
                    value=f"dense {label}",
                    reproduced=(accuracy - 1, accuracy + 1),
                    unit="%",
                )
                for (label, rate), accuracy in of_dense
            ),
            Claim(
                "At learning rate 0.1, pruned by half with ADMM: R_p with the initial "
                "weights is near 20 %",
                published=f"{r_initial} % ({data})",
                source="appendix F, table 1",
                value="pruned, initial",
                reproduced=(18, 23),
                unit="%",
            ),
            Claim(
                "At learning rate 0.1, pruned by half with ADMM: R_p with the trained "
                "weights is far higher",
                published=f"{r_trained} % ({data})",
                source="appendix F, table 1",
                value="pruned, trained",
                reproduced=(20 + (r_trained - 20) / 2, INFINITY),
                unit="%",
                sign=(20, INFINITY),
            ),
            *claims,
        ),
    )


RESNET_20 = (
    Claim(
        "At learning rate 0.01, R_p of the dense network is well above 20 %",
        published="notably higher than at 0.1 (curves)",
        source="section 4.3, figure 4",
        value="R_p small",
        reproduced=(30, INFINITY),
        unit="%",
        sign=(20, INFINITY),
    ),
    Claim(
        "At learning rate 0.1, R_p of the dense network is near 20 %",
        published="about 20 %",
        source="section 4.3, figure 4",
        value="R_p large",
        reproduced=(15, 25),
        unit="%",
    ),
    *(
        claim
        for percent in (62, 80)
        for claim in (
            effect(
                f"At 0.01 and {percent} % sparsity, tickets beat reinitialised ones",
                published="they do",
                source="section 4.1, figure 2",
                value=f"small {percent}",
                size=0,
                unit="pp",
            ),
            Claim(
                f"At 0.1 and {percent} % sparsity, tickets and reinitialised ones are "
                "about as accurate",
                published="similar",
                source="section 4.1, figure 2",
                value=f"large {percent}",
                reproduced=(-0.3, 0.3),
                unit="pp",
            ),
            effect(
                f"At {percent} % sparsity, tickets gain less over reinitialised ones "
                "at 0.1 than at 0.01",
                published="less (curves)",
                source="section 4.1, figure 2",
                value=f"less at large {percent}",
                size=0,
                unit="pp",
            ),
            effect(
                f"At 0.1 and {percent} % sparsity, fine-tuned weights in a ticket's "
                "masks beat the ticket",
                published="they do",
                source="section 5, figure 6",
                value=f"tuned over ticket {percent}",
                size=0,
                unit="pp",
            ),
            effect(
                f"At 0.1 and {percent} % sparsity, fine-tuned weights in a ticket's "
                "masks beat the reinitialised ticket",
                published="they do",
                source="section 5, figure 6",
                value=f"tuned over reinit {percent}",
                size=0,
                unit="pp",
            ),
        )
    ),
    effect(
        "At 0.1 and 70 % sparsity, fine-tuned weights in a ticket's masks beat the "
        "dense network",
        published="they do",
        source="section 5, figure 6",
        value="tuned 70",
        size=0,
        unit="pp",
    ),
    Claim(
        "At 0.1, a network pruned by ADMM to 80 % sparsity is as accurate as the dense "
        "one",
        published="it is",
        source="section 5, figure 6",
        value="ADMM",
        reproduced=(-0.3, INFINITY),
        unit="pp",
    ),
    effect(
        "Fine-tuned at 80 % sparsity, masks of ADMM beat those of iterative pruning",
        published="they do",
        source="section 5, figure 7",
        value="ADMM over iterative",
        size=0,
        unit="pp",
    ),
    effect(
        "Fine-tuned at 80 % sparsity, masks of iterative pruning beat one-shot masks",
        published="they do",
        source="section 5, figure 7",
        value="iterative over one-shot",
        size=0,
        unit="pp",
    ),
)

EXPERIMENTS = (
    experiment(
        "resnet_20",
        "a ResNet",
        resnet_20,
        trainings=160,
        published=(20.36, 63.97, "CIFAR-100"),
        levels=4,
        small=partial(models.resnet, 8),
        accuracies=(89.62, 91.7),
        claims=RESNET_20,
        others={
            "cpu": narrow_resnet(
                "60 trainings, most of 4,000 steps, about 40 minutes on 2 cores",
                levels=2,
                drops=DROPS,
            )
        },
    ),
    experiment(
        "vgg_11",
        "a VGG",
        vgg_11,
        trainings=40,
        published=(20.21, 48.08, "CIFAR-10"),
        small=partial(models.vgg, (1, 1, 2, 2, 2), 4),
        others={
            "cpu": narrow_vgg(
                "24 trainings, most of 4,000 steps, about 15 minutes on 2 cores",
                levels=1,
                drops=DROPS,
            )
        },
    ),
    experiment(
        "mobilenet_v2",
        "a MobileNet-V2",
        mobilenet_v2,
        trainings=40,
        published=(20.26, 49.36, "CIFAR-10"),
        small=partial(models.mobilenet, [(1, 4, 1, 1), (2, 4, 1, 2)], 4, 8),
        accuracies=(92.2, 93.86),
        accuracies_in="appendix A",
        others={
            "cpu": narrow_mobilenet(
                "24 trainings, most of 4,000 steps, about 20 minutes on 2 cores",
                levels=1,
                drops=DROPS,
            )
        },
    ),
)
