"""Zhou et al.: what to do with the weights that a mask prunes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import layers

from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.deconstructing import ZHOU
from keras_lottery.papers.experiments.experiment import Experiment, Values, effect
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import ACCURACY, LABELS, at
from keras_lottery.papers.experiments.networks import biases_apart, lenet_of
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.papers.experiments.training import Start
from keras_lottery.search import LotteryTicketSearch


def with_frozen(name: str, units: int, inputs: Any) -> Any:
    """The sum of the products of a trained kernel, and of a frozen one beside it."""
    trained = layers.Dense(units, use_bias=False, name=name)
    frozen = layers.Dense(units, use_bias=False, trainable=False, name=f"{name}_frozen")
    return layers.Add(name=f"{name}_sum")([trained(inputs), frozen(inputs)])


NETWORK = lenet_of("lenet_300_100_frozen", with_frozen)


def run(lab: Lab) -> Mapping[str, Values]:
    """Trains tickets with pruned weights at zero, or all or some of them frozen."""
    import pandas as pd

    search = lab.search("iterative", rate=0.5)
    rows = [
        ("zero", row["density"], row["replicate"], 100 * row[ACCURACY])
        for _, row in search.results().iterrows()
    ]
    starts, densities = {}, {}
    for replicate in lab.replicates:
        initial = search.ticket(0, replicate).weights
        for level, masks, towards in pruned(search, lab.scale.levels, replicate):
            left_out = Masks({name: ~mask for name, mask in masks.items()})
            away = Masks({name: left_out[name] & ~towards[name] for name in masks})
            actions = {"frozen": left_out, "frozen unless towards zero": away}
            for action, frozen in actions.items():
                label = f"{action.replace(' ', '_')}_{level}_{replicate}"
                starts[label] = Start(
                    weights={**biases_apart(initial), **_frozen(initial, masks)},
                    masks=Masks({**masks, **_frozen(frozen, masks)}),
                    replicate=replicate,
                )
                densities[label] = action, masks.density, replicate
    for label, trained in lab.train_all("actions", starts, model=NETWORK).items():
        rows.append((*densities[label], 100 * trained.metrics[ACCURACY]))
    names = ["variant", "density", "replicate", "accuracy"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("mask_actions", table)
    lab.figure(
        "mask_actions",
        lines(table, "density", "accuracy", LABELS[ACCURACY], "variant"),
    )
    zero, all_frozen, some = (
        at(table, 0.0635, "accuracy", action)
        for action in ("zero", "frozen", "frozen unless towards zero")
    )
    return {"zero over frozen": zero - all_frozen, "some over zero": some - zero}


def pruned(
    search: LotteryTicketSearch, levels: int, replicate: int
) -> Iterator[tuple[int, Masks, dict[str, np.ndarray]]]:
    """The masks of each level, and which pruned weights had moved towards zero.

    Yields:
        The level, its masks, and for each weight whether it was pruned and was nearer
        to zero at the end of its last training than initially.
    """
    before = search.ticket(0, replicate)
    initial = before.weights
    towards = {name: np.zeros(mask.shape, bool) for name, mask in before.masks.items()}
    for level in range(1, levels + 1):
        ticket = search.ticket(level, replicate)
        assert before.trained is not None
        for name, mask in ticket.masks.items():
            nearer = np.abs(before.trained[name]) < np.abs(initial[name])
            towards[name] = towards[name] | (before.masks[name] & ~mask & nearer)
        yield level, ticket.masks, towards
        before = ticket


def _frozen(
    arrays: Mapping[str, np.ndarray], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Arrays under the names of the frozen layers instead of the trained ones."""
    return {name.replace("/", "_frozen/"): arrays[name] for name in names}


EXPERIMENT = Experiment(
    "mask_actions",
    "What to do with the weights that a mask prunes",
    ZHOU,
    lenet(
        cpu="39 trainings of 7,328 steps, about 4 minutes on 2 cores",
        paper="65 trainings of 50,000 steps",
        levels=4,
    ),
    run,
    (
        effect(
            "Pruned weights do better at zero than frozen at their initial values (6 "
            "%)",
            published="better",
            source="section 4",
            value="zero over frozen",
            size=0,
            unit="pp",
        ),
        effect(
            "Pruned weights do better still if only those that had moved towards zero "
            "are set to zero, and the others are frozen (6 %)",
            published="better",
            source="section 4",
            value="some over zero",
            size=0,
            unit="pp",
        ),
    ),
)
