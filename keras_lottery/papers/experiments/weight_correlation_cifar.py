"""Liu et al.: the same questions of the paper's own networks, on CIFAR-10."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import State
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.fine_tuning import admm, fine_tune, r_p
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, at, gain
from keras_lottery.papers.experiments.scales import cifar_10
from keras_lottery.papers.experiments.training import Trained
from keras_lottery.papers.experiments.weight_correlation import EXPERIMENT as ON_LENET
from keras_lottery.papers.experiments.weight_correlation import RATES, at_rate
from keras_lottery.papers.models import Recipe
from keras_lottery.papers.models.deep import EPOCH
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.tickets import Ticket
from keras_lottery.tickets.allocation import Uniform


def resnet_20(lab: Lab) -> Mapping[str, Values]:
    """ResNet-20 (ResNet-8 at smoke scale), fine-tuned after pruning as well."""
    model = partial(models.resnet, 20 if lab.scale.is_faithful else 8)
    how = arguments(model, "conv_1", (0.38, 0.62, 0.7))
    measured, searches = correlate(lab, how)
    tables = lab.panels("accuracy", searches, FINAL)
    for label in RATES:
        measured[label] = gain(tables[label], 0.38, over="reinit", column=FINAL)
    recipe, network = recipes(lab)["large"], how["model"]
    tuned, sparse = [], []
    for replicate in lab.replicates:
        dense = trained(searches["large"].ticket(0, replicate))
        masks = searches["large"].ticket(3, replicate).masks
        found = fine_tune(lab, "large_3", dense, masks, replicate, recipe, network)
        tuned.append(100 * found.metrics[FINAL])
        found = pruned(lab, searches["large"], how, 0.8, replicate)
        sparse.append(100 * found.metrics[FINAL])
    measured["tuned"] = np.subtract(tuned, measured["dense large"])
    measured["ADMM"] = np.subtract(sparse, measured["dense large"])
    return measured


def vgg_11(lab: Lab) -> Mapping[str, Values]:
    """VGG-11, narrow at smoke scale."""
    model = partial(models.vgg, (1, 1, 2, 2, 2), 64 if lab.scale.is_faithful else 4)
    return _alone(lab, arguments(model, "conv_1", (0.5,)))


def mobilenet_v2(lab: Lab) -> Mapping[str, Values]:
    """MobileNet-V2."""
    return _alone(lab, arguments(models.mobilenet_v2, "stem", (0.5,)))


def _alone(lab: Lab, how: Mapping[str, Any]) -> Mapping[str, Values]:
    measured, searches = correlate(lab, how)
    lab.panels("accuracy", searches, FINAL)
    return measured


def arguments(
    model: Callable[..., keras.Model],
    first: str,
    sparsities: Sequence[float],
) -> dict[str, Any]:
    """What all searches of a network share; its first convolution is left alone."""
    return {
        "model": model,
        "schedule": sparsities,
        "allocation": Uniform(exclude=(first,)),
    }


def recipes(lab: Lab) -> dict[str, Recipe]:
    """The recipe at each learning rate."""
    return {label: at_rate(lab.recipe, label) for label in RATES}


def correlate(
    lab: Lab, how: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, LotteryTicketSearch]]:
    """Tickets and their reinitialisations by learning rate; R_p and accuracies.

    Returns:
        What is measured, and the searches by learning rate.
    """
    measured: dict[str, Any] = {}
    searches = {}
    for label, recipe in recipes(lab).items():
        search = lab.search(label, controls=["reinit"], recipe=recipe, **how)
        searches[label] = search
        measured[f"dense {label}"] = 100 * at(search.results(), 1.0, FINAL)
        tickets = [search.ticket(0, replicate) for replicate in lab.replicates]
        measured[f"R_p {label}"] = [
            r_p(ticket.weights, trained(ticket)) for ticket in tickets
        ]
    measured["pruned, initial"], measured["pruned, trained"] = [], []
    for replicate in lab.replicates:
        dense = searches["large"].ticket(0, replicate)
        after = pruned(lab, searches["large"], how, 0.5, replicate).final
        measured["pruned, initial"].append(r_p(dense.weights, after))
        measured["pruned, trained"].append(r_p(trained(dense), after))
    return measured, searches


def pruned(
    lab: Lab,
    search: LotteryTicketSearch,
    how: Mapping[str, Any],
    sparsity: float,
    replicate: int,
) -> Trained:
    """A dense network of a search in masks by ADMM, fine-tuned, at the large rate."""
    dense, recipe = trained(search.ticket(0, replicate)), recipes(lab)["large"]
    masks = admm(
        lab,
        "large",
        dense,
        sparsity,
        replicate,
        recipe,
        how["allocation"],
        how["model"],
    )
    name = f"large_admm_{100 * sparsity:g}"
    return fine_tune(lab, name, dense, masks, replicate, recipe, how["model"])


def trained(ticket: Ticket) -> State:
    """The weights of a stored ticket at the end of its training."""
    assert ticket.trained is not None
    return ticket.trained


def experiment(
    model: str,
    title: str,
    run: Callable[[Lab], Mapping[str, Values]],
    trainings: int,
    published: tuple[float, str],
    accuracies: Sequence[float] = (),
    claims: Sequence[Claim] = (),
) -> Experiment:
    """The experiment of one network.

    Args:
        model: its name in `models`.
        title: its name in words.
        run: same as `Experiment`.
        trainings: how many there are at the paper's scale.
        published: the R_p of the trained weights and those half pruned by ADMM,
            in %, and the data set that it is of.
        accuracies: those of the dense network that are published, by learning rate.
        claims: others.
    """
    of_dense = zip(RATES.items(), accuracies, strict=False)
    r_trained, data = published
    return Experiment(
        f"weight_correlation_{model}",
        f"Initial and final weights of {title}, by learning rate",
        ON_LENET.paper,
        cifar_10(
            model,
            f"{trainings} trainings, most of 52,650 steps, hours on a GPU",
            levels=3,
            smoke="minutes",
            steps=150 * EPOCH,
            drops=(80 * EPOCH, 120 * EPOCH),
        ),
        run,
        (
            *(
                Claim(
                    f"The dense network's accuracy at learning rate {rate}",
                    published=f"{accuracy} %",
                    source="section 4.1",
                    value=f"dense {label}",
                    reproduced=(accuracy - 1, accuracy + 1),
                    unit="%",
                )
                for (label, rate), accuracy in of_dense
            ),
            Claim(
                "At 0.1, half pruned by ADMM: R_p of the initial weights is near 20 %",
                published="20.1 to 20.4 %",
                source="appendix F, table 1",
                value="pruned, initial",
                reproduced=(18, 23),
                unit="%",
            ),
            Claim(
                "R_p of the trained weights is far above",
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
        "At 0.01, R_p of initial and trained weights, not pruned, is well above 20 %",
        published="above (curves)",
        source="section 4.3",
        value="R_p small",
        reproduced=(30, INFINITY),
        unit="%",
        sign=(20, INFINITY),
    ),
    effect(
        "At 0.01, the ticket of 62 % sparsity beats its reinitialisation",
        published="it does",
        source="section 4.1",
        value="small",
        size=0,
        unit="pp",
    ),
    Claim(
        "At 0.1, it is about as accurate",
        published="about equal",
        source="section 4.1",
        value="large",
        reproduced=(-0.3, 0.3),
        unit="pp",
    ),
    effect(
        "At 0.1, the trained weights in the masks of 70 %, fine-tuned, beat the dense "
        "network",
        published="they do",
        source="section 5",
        value="tuned",
        size=0,
        unit="pp",
    ),
    Claim(
        "At 0.1, pruned by ADMM to 80 % sparsity, it is as accurate as when dense",
        published="it is",
        source="section 5",
        value="ADMM",
        reproduced=(-0.3, INFINITY),
        unit="pp",
    ),
)

EXPERIMENTS = (
    experiment(
        "resnet_20",
        "ResNet-20",
        resnet_20,
        trainings=95,
        published=(63.97, "CIFAR-100"),
        accuracies=(89.62, 91.7),
        claims=RESNET_20,
    ),
    experiment("vgg_11", "VGG-11", vgg_11, trainings=40, published=(48.08, "CIFAR-10")),
    experiment(
        "mobilenet_v2",
        "MobileNet-V2",
        mobilenet_v2,
        trainings=40,
        published=(49.36, "CIFAR-10"),
        accuracies=(92.2, 93.86),
    ),
)
