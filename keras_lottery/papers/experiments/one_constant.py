"""An open question: how good is a ticket with one magnitude for all its weights?"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.deconstructing import ZHOU
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import ACCURACY, LABELS, at
from keras_lottery.papers.experiments.networks import biases_apart, lenet_of
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.papers.experiments.training import Start


@keras.saving.register_keras_serializable("keras_lottery")
class Constant(layers.Layer):
    """Multiplies its inputs by one learned number, the same at each call.

    >>> float(Constant()(np.ones(1))[0])
    1.0
    """

    def build(self, input_shape: Any) -> None:
        self.constant = self.add_weight(shape=(), initializer="ones", name="constant")

    def call(self, inputs: Any) -> Any:
        return inputs * self.constant


def one_constant(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
    """LeNet-300-100 with frozen kernels, and one number that multiplies all of them.

    Biases are trained. Without them, the number would only scale the outputs, since
    ReLUs are homogeneous, and training would change no prediction.

    >>> model = one_constant((8, 8, 1))
    >>> [weight.path for weight in model.trainable_weights]
    ['constant/constant', 'hidden_1_bias/bias', 'hidden_2_bias/bias',
     'output_bias/bias']
    """
    constant = Constant(name="constant")

    def product(name: str, units: int, inputs: Any) -> Any:
        signs = layers.Dense(units, use_bias=False, trainable=False, name=name)
        return constant(signs(inputs))

    return lenet_of("lenet_300_100_one_constant", product)(input_shape, classes)


def start(weights: State, masks: Masks, rng: np.random.Generator | None) -> State:
    """The signs of a ticket's kernels, or random signs; its biases; and a constant.

    The constant is the root mean square of the remaining weights.

    >>> weights = {"a/kernel": np.array([-1.0, 7.0]), "a/bias": np.zeros(1)}
    >>> state = start(weights, Masks({"a/kernel": np.array([True, True])}), None)
    >>> state["a/kernel"].tolist(), float(state["constant/constant"])
    ([-1.0, 1.0], 5.0)
    """
    left = np.concatenate([weights[name][mask] for name, mask in masks.items()])
    state = biases_apart(weights)
    state["constant/constant"] = np.sqrt(np.mean(left**2))
    for name in masks:
        value = state[name] if rng is None else rng.standard_normal(state[name].shape)
        state[name] = np.sign(value).astype(state[name].dtype)
    return state


def run(lab: Lab) -> Mapping[str, Values]:
    """Compares tickets and dense networks with networks of one constant."""
    import pandas as pd

    search = lab.search("iterative", rate=0.5)
    rows = [
        ("ticket", row["density"], row["replicate"], 100 * row[ACCURACY], np.nan)
        for _, row in search.results().iterrows()
    ]
    starts, which = {}, {}
    for replicate in lab.replicates:
        for level in range(lab.scale.levels + 1):
            ticket = search.ticket(level, replicate)
            for variant in ("signs", "random signs"):
                entropy = [replicate, level]
                rng = np.random.default_rng(entropy) if "random" in variant else None
                label = f"{variant.replace(' ', '_')}_{level}_{replicate}"
                starts[label] = Start(
                    weights=start(ticket.weights, ticket.masks, rng),
                    masks=ticket.masks,
                    replicate=replicate,
                )
                which[label] = variant, ticket.masks.density, replicate
    for label, trained in lab.train_all("signs", starts, model=one_constant).items():
        constant = float(trained.final["constant/constant"])
        rows.append((*which[label], 100 * trained.metrics[ACCURACY], constant))
    names = ["variant", "density", "replicate", "accuracy", "constant"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("one_constant", table)
    lab.figure(
        "one_constant",
        lines(table, "density", "accuracy", LABELS[ACCURACY], "variant"),
    )
    signs, random, itself, dense = (
        at(table, density, "accuracy", variant)
        for variant, density in (
            ("signs", 0.0635),
            ("random signs", 0.0635),
            ("ticket", 0.0635),
            ("signs", 1.0),
        )
    )
    return {
        "over random": signs - random,
        "over dense": signs - dense,
        "over ticket": signs - itself,
    }


EXPERIMENT = Experiment(
    "one_constant",
    "One learnable magnitude for all weights",
    f"An open question, from section 3 of {ZHOU}",
    lenet(
        cpu="45 trainings of 7,328 steps, about 4 minutes on 2 cores",
        paper="75 trainings of 50,000 steps",
        levels=4,
    ),
    run,
    (
        effect(
            "With one magnitude at 6 %, a ticket's signs beat random signs in its "
            "masks",
            published="open",
            source="no published figure",
            value="over random",
            size=0,
            unit="pp",
        ),
        effect(
            "With one magnitude, a ticket's signs beat the dense network's initial "
            "signs",
            published="open",
            source="no published figure",
            value="over dense",
            size=0,
            unit="pp",
        ),
        Claim(
            "At 6 %, a ticket with one magnitude is within 2 pp of the ticket itself",
            published="open",
            source="no published figure",
            value="over ticket",
            reproduced=(-2, INFINITY),
            unit="pp",
        ),
    ),
)
