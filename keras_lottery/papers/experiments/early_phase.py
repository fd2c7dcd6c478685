"""Frankle et al.: what tickets owe to the first steps, and what can replace them."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from keras_lottery.data import Splits
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.fine_tuning import DROPS
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, LABELS, at
from keras_lottery.papers.experiments.networks import PreTrained
from keras_lottery.papers.experiments.scales import cifar_10, narrow_resnet, of_length
from keras_lottery.papers.experiments.training import Start
from keras_lottery.papers.models.deep import EPOCH
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.replicates import derive_seed
from keras_lottery.tickets import Snapshot, Ticket, controls
from keras_lottery.tickets.allocation import Global
from keras_lottery.tickets.controls import Control, Noise

DENSITY = 0.262
"""The density of the tickets, after six rounds that prune a fifth each."""
REWIND_POINT = 500
BODY = ("conv_*", "norm_*", "shortcut_*")
"""The layers that keep their weights if the pre-training had other classes."""
PRE_TRAINING = 4
"""Pre-training takes a quarter of the steps: 40 of the paper's 160 epochs."""
CONTROLS: dict[str, Control] = {
    **{
        name: controls.get(name)
        for name in (
            "redraw_same_sign",
            "initial_weights",
            "initial_signs",
            "initial_magnitudes",
            "shuffle_weights",
            "shuffle_weights_same_sign",
            "shuffle_in_filters",
            "shuffle_in_filters_same_sign",
        )
    },
    **{f"noise_{n}": Noise(n, of="initial") for n in (0.5, 1, 2, 3)},
}
"""Changes of the weights at the rewind point, by name."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Trains tickets from perturbed weights, and from weights of other tasks."""
    k = min(REWIND_POINT, lab.recipe.steps // 4)
    searches = {f"from_{at}": search(lab, f"from_{at}", rewind_to=at) for at in (k, 0)}
    for task, change in TASKS.items():
        searches[task] = pre_trained(lab, task, change(lab.splits))
    tables = lab.panels("rewinding", searches, FINAL)
    late, early = tables[f"from_{k}"], tables["from_0"]

    def over_early(table: Any) -> np.ndarray:
        # Not a gain over the dense network, which is pre-trained, too.
        return 100 * (at(table, DENSITY, FINAL) - at(early, DENSITY, FINAL))

    return {
        **perturbed(lab, searches[f"from_{k}"], k),
        "late over early": over_early(late),
        **{f"{task} over early": over_early(tables[task]) for task in TASKS},
        "rotation over random labels": over_early(tables["rotation"])
        - over_early(tables["random_labels"]),
    }


def search(lab: Lab, name: str, **how: Any) -> LotteryTicketSearch:
    """Finds tickets of 26 % in as many rounds as the scale has."""
    rate = 1 - DENSITY ** (1 / lab.scale.levels)
    return lab.search(name, rate=rate, allocation=Global(floor=0), **how)


def perturbed(lab: Lab, found: LotteryTicketSearch, k: int) -> dict[str, Values]:
    """Trains the sparsest tickets with other weights at the rewind point.

    Args:
        lab: where to train.
        found: a search that rewinds to step k.
        k: the rewind point.

    Returns:
        `"<control> costs"`, the accuracy that each control costs the ticket, in
        percentage points; other values of the claims; and `"correlation"`, the rank
        correlation of the size of a perturbation with the accuracy.
    """
    import pandas as pd

    def start(ticket: Ticket, replicate: int) -> Start:
        return Start(
            weights=ticket.weights, masks=ticket.masks, step=k, replicate=replicate
        )

    starts, rows = {}, []
    for replicate in lab.replicates:
        ticket, snapshot = at_rewind_point(lab, found, replicate)
        rows.append(("ticket", replicate, 0.0))
        starts[f"ticket_{replicate}"] = start(ticket, replicate)
        for name, control in CONTROLS.items():
            rng = np.random.default_rng(derive_seed(0, replicate, name))
            made = control(ticket, dataclasses.replace(snapshot, rng=rng))
            size = deviation(ticket, made, snapshot)
            rows.append((name, replicate, size))
            label = f"{name}_{replicate}".replace(".", "_")
            starts[label] = start(made, replicate)
    done = lab.train_all("perturbed", starts).values()
    table = pd.DataFrame(rows, columns=["control", "replicate", "deviation"])
    table["accuracy"] = [100 * training.metrics[FINAL] for training in done]
    lab.table("perturbed", table)
    points = table.groupby("control", sort=False)[["deviation", "accuracy"]].mean()
    lab.figure(
        "perturbed",
        lines(
            table.assign(deviation=table["control"].map(points["deviation"])),
            "deviation",
            "accuracy",
            LABELS[FINAL],
            "control",
            x_label="standard deviation of the change, in initial ones",
        ),
    )
    by = table.set_index(["control", "replicate"])["accuracy"].unstack()
    costs = {name: (by.loc["ticket"] - by.loc[name]).to_numpy() for name in CONTROLS}
    return {
        **{f"{name} costs": cost for name, cost in costs.items()},
        "noise": costs["noise_2"] - costs["noise_0.5"],
        "filters over layers": costs["shuffle_weights"] - costs["shuffle_in_filters"],
        "correlation": [
            part["deviation"].corr(part["accuracy"], method="spearman")
            for _, part in table.groupby("replicate")
        ],
    }


def at_rewind_point(
    lab: Lab, found: LotteryTicketSearch, replicate: int
) -> tuple[Ticket, Snapshot]:
    """A replicate's sparsest ticket, and the snapshot that its masks come from."""
    level = lab.scale.levels
    ticket = found.ticket(level, replicate)
    snapshot = Snapshot(
        masks=found.masks(level - 1, replicate),
        final=found.trained(level - 1, replicate),
        initial=found.initial(replicate),
        rewind_point=ticket.weights,
        rng=np.random.default_rng(),
        shared_model=lab.model(replicate)[0],
    )
    return ticket, snapshot


def deviation(ticket: Ticket, made: Ticket, snapshot: Snapshot) -> float:
    """The standard deviation of the changes, in units of the initial weights'.

    It is over the remaining weights of all layers; the unit is each layer's own.
    """
    changes = [
        (made.weights[name] - ticket.weights[name])[mask] / snapshot.initial[name].std()
        for name, mask in ticket.masks.items()
    ]
    return float(np.std(np.concatenate(changes)))


def pre_trained(lab: Lab, task: str, splits: Splits) -> LotteryTicketSearch:
    """Finds tickets of networks that are pre-trained on other data for the k steps.

    All replicates start from one pre-training, at the highest learning rate. Rewinding
    returns to its weights.
    """
    recipe = lab.recipe
    steps = max(1, recipe.steps // PRE_TRAINING)
    # A mirrored image that was turned left looks like one that was turned right.
    augment = recipe.augment and task != "rotation"
    recipe = dataclasses.replace(of_length(recipe, steps, steps), augment=augment)
    before = lab.with_data(splits, recipe=recipe, replicates=1)
    weights = before.train(f"pre_training_{task}").final
    kept: bool | tuple[str, ...] = True
    if splits.classes != lab.splits.classes:
        kept = BODY
        weights = {n: a for n, a in weights.items() if not n.startswith("output/")}
    network = PreTrained(models.get(lab.scale.model), weights)
    after = lab.with_data(lab.splits, model=network)
    return search(after, task, rewind_to=0, pretrained=kept)


def rotation(splits: Splits) -> Splits:
    """Images rotated by multiples of 90°; the task is to tell by how many."""
    rng = np.random.default_rng(0)
    parts: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        x = getattr(splits, f"x_{part}").copy()
        turns = rng.integers(4, size=len(x)).astype("int32")
        for count in range(4):
            x[turns == count] = np.rot90(x[turns == count], count, axes=(1, 2))
        parts |= {f"x_{part}": x, f"y_{part}": turns}
    name = f"{splits.name}_rotation"
    return dataclasses.replace(splits, name=name, classes=4, **parts)


def blur(splits: Splits) -> Splits:
    """Training images with a quarter of the pixels, each the mean of four."""
    x = splits.averaged(2).x_train.repeat(2, axis=1).repeat(2, axis=2)
    return dataclasses.replace(splits, name=f"{splits.name}_blur", x_train=x)


def random_labels(splits: Splits) -> Splits:
    """Training images with random labels."""
    y = np.random.default_rng(0).integers(splits.classes, size=len(splits.y_train))
    name = f"{splits.name}_random_labels"
    return dataclasses.replace(splits, name=name, y_train=y.astype("int32"))


TASKS: dict[str, Callable[[Splits], Splits]] = {
    "rotation": rotation,
    "blur": blur,
    "random_labels": random_labels,
}


def _costs(control: str, words: str, source: str) -> Claim:
    return effect(
        f"Rewound to step {REWIND_POINT}, a ticket of 26 % is less accurate {words}",
        published="less accurate",
        source=source,
        value=f"{control} costs",
        size=0,
        unit="pp",
    )


EXPERIMENT = Experiment(
    "early_phase",
    "What a ticket owes to the first steps of training, and what can replace them",
    "Frankle et al. 2020, [The early phase of neural network training]("
    "https://arxiv.org/abs/2002.10365)",
    {
        **cifar_10(
            "resnet_20",
            "243 trainings of 56,160 steps, hours on a GPU",
            levels=6,
            report=(6,),
            small=partial(models.resnet, 8),
            learning_rate=0.1,
            steps=160 * EPOCH,
            drops=(80 * EPOCH, 120 * EPOCH),
        ),
        "cpu": narrow_resnet(
            "87 trainings of 4,000 steps, about an hour on 2 cores",
            levels=2,
            report=(2,),
            drops=DROPS,
        ),
    },
    run,
    (
        _costs("redraw_same_sign", "if only its signs are kept", "abstract"),
        _costs("initial_weights", "with the weights of step 0", "section 1"),
        _costs(
            "shuffle_weights",
            "with weights shuffled in layers",
            "abstract: weights depend on one another",
        ),
        _costs(
            "shuffle_in_filters_same_sign",
            "with weights shuffled in filters among those of the same sign",
            "abstract: weights depend on one another",
        ),
        Claim(
            "A ticket shuffled in filters is at least as accurate as one shuffled in "
            "layers",
            published="about equal (curves, from memory)",
            source="section 4",
            value="filters over layers",
            reproduced=(-0.3, INFINITY),
            unit="pp",
        ),
        Claim(
            "Noise of half the initial standard deviation costs a ticket little",
            published="nearly nothing (curves, from memory)",
            source="section 4",
            value="noise_0.5 costs",
            reproduced=(-INFINITY, 0.5),
            unit="pp",
        ),
        effect(
            "Noise of twice the initial standard deviation costs more",
            published="more (curves, from memory)",
            source="section 4",
            value="noise",
            size=0,
            unit="pp",
        ),
        Claim(
            "The larger the change, the lower the accuracy (rank correlation)",
            published="-0.67 (Pearson, from memory)",
            source="section 4",
            value="correlation",
            reproduced=(-INFINITY, -0.5),
            sign=(-INFINITY, 0),
        ),
        effect(
            f"Rewinding to step {REWIND_POINT} beats rewinding to the start",
            published="needed in deeper networks",
            source="section 1",
            value="late over early",
            size=0,
            unit="pp",
        ),
        effect(
            "Pre-training by rotation beats rewinding to the start",
            published="stands in for the first steps",
            source="abstract",
            value="rotation over early",
            size=0,
            unit="pp",
        ),
        effect(
            "Pre-training on blurred images beats rewinding to the start",
            published="stands in for the first steps",
            source="abstract",
            value="blur over early",
            size=0,
            unit="pp",
        ),
        effect(
            "Pre-training by rotation beats pre-training on random labels",
            published="random labels do not help (from memory)",
            source="section 5",
            value="rotation over random labels",
            size=0,
            unit="pp",
        ),
    ),
)
