"""Liu et al.: fine-tuning pruned networks, against training them from scratch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import heat_map
from keras_lottery.papers.experiments.lab import Lab, Model
from keras_lottery.papers.experiments.measures import FINAL
from keras_lottery.papers.experiments.scales import cifar_10, narrow_vgg, of_length
from keras_lottery.papers.experiments.smaller import pruned, tuning
from keras_lottery.papers.models import Recipe
from keras_lottery.structured import multiply_adds

DROPS = (0.5, 0.75)
"""When the learning rate drops, as shares of a training."""
PENALTY = 1e-4
"""The penalty on the scales of normalisations, for network slimming."""
AT_MOST = 4
"""The longest training from scratch, as a multiple of the dense training."""


@dataclass(frozen=True)
class Slimming:
    """Builds a network with a penalty on the scales of its normalisations.

    Args:
        model: the network's name, or a function `(input_shape, classes) -> model`.
        penalty: λ of λ Σ |γ|.

    Example:

    >>> model = Slimming(partial(models.vgg, (1, 1), 4), 0.5)((8, 8, 1), 10)
    >>> len(model.losses)
    2
    """

    model: Model
    penalty: float = PENALTY

    def __call__(
        self, input_shape: tuple[int, ...], classes: int, **how: Any
    ) -> keras.Model:
        """Builds the network, without compiling it."""
        plain = models.get(self.model)(input_shape, classes, **how)
        return keras.models.clone_model(plain, clone_function=self._copied)

    def _copied(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["gamma_regularizer"] = keras.regularizers.L1(self.penalty)
        return type(layer).from_config(config)


@dataclass(frozen=True)
class Method:
    """How a network is trained and pruned.

    Args:
        sparsity: the share of filters to prune.
        criterion, allocation: same as in `prune`.
        is_slimming: whether the dense training has the penalty of `Slimming`.
    """

    sparsity: float
    criterion: str
    allocation: str
    is_slimming: bool


METHODS = {
    "l1": Method(0.4, "l1", "uniform", is_slimming=False),
    "slimming": Method(0.5, "bn_scale", "global", is_slimming=True),
}


def run(lab: Lab) -> Mapping[str, Values]:
    """Prunes and fine-tunes dense networks, and trains their shapes from scratch."""
    import pandas as pd

    rows = [
        {"method": name, "replicate": replicate, **row(lab, name, method, replicate)}
        for name, method in METHODS.items()
        for replicate in lab.replicates
    ]
    table = pd.DataFrame(rows)
    lab.table("replicates", table.round(3))
    ways = ["dense", "fine-tuned", "scratch-E", "scratch-B"]
    means = table.groupby("method", sort=False)[ways].mean()
    lab.figure("rethinking", heat_map(means, "test accuracy (%)", ("", "method")))
    values: dict[str, Values] = {}
    for name in METHODS:
        part = table[table["method"] == name]
        tuned = part["fine-tuned"]
        values[f"{name}: FLOPs"] = part["FLOPs"].to_numpy()
        values[f"{name}: tuned over dense"] = (tuned - part["dense"]).to_numpy()
        for way in ("scratch-E", "scratch-B"):
            values[f"{name}: {way} over tuned"] = (part[way] - tuned).to_numpy()
    return values


def row(lab: Lab, name: str, method: Method, replicate: int) -> dict[str, float]:
    """Trains a replicate of a method in all ways, and returns accuracies in %."""
    model: Model = lab.scale.model
    if method.is_slimming:
        model = Slimming(model)
    dense = lab.train(f"{name}_dense_{replicate}", replicate=replicate, model=model)
    found = pruned(
        lab,
        dense.final,
        method.sparsity,
        method.criterion,
        replicate,
        model=lab.scale.model,
        allocation=method.allocation,
    )
    share = multiply_adds(found.network) / multiply_adds(found.whole)

    def accuracy(way: str, recipe: Recipe, **start: Any) -> float:
        trained = lab.train(
            f"{name}_{way}_{replicate}",
            replicate=replicate,
            recipe=recipe,
            model=found.model,
            **start,
        )
        return 100 * trained.metrics[FINAL]

    return {
        "FLOPs": 100 * share,
        "dense": 100 * dense.metrics[FINAL],
        "fine-tuned": accuracy("tuned", tuning(lab, DROPS), start=found.weights),
        "scratch-E": accuracy("scratch_e", lab.recipe),
        "scratch-B": accuracy("scratch_b", _longer(lab, 1 / share)),
    }


def _longer(lab: Lab, times: float) -> Recipe:
    """The recipe, lengthened by the factor by which a step is cheaper."""
    often = lab.recipe.eval_freq
    steps = often * round(min(times, AT_MOST) * lab.recipe.steps / often)
    return of_length(lab.recipe, steps, often, DROPS)


def _scales() -> dict[str, Scale]:
    others = cifar_10(
        "vgg_19",
        "40 trainings, 20 of 112,480 steps and 10 of up to four times as many: weeks "
        "on a GPU",
        levels=1,
        small=partial(models.vgg, (1, 1), 4),
        learning_rate=0.1,
    )
    cpu = narrow_vgg(
        "24 trainings of 1,000 to about 10,000 steps, about 20 minutes on 2 cores",
        levels=1,
        drops=DROPS,
    )
    return {
        "smoke": others["smoke"],
        "cpu": cpu,
        "paper": others["paper"],
    }


def _no_worse(name: str, words: str, way: str, published: str, source: str) -> Claim:
    return Claim(
        f"{words}, {way} is no worse than fine-tuning",
        published,
        source,
        value=f"{name}: {way} over tuned",
        reproduced=(-0.5, INFINITY),
        unit="pp",
        sign=(-1, INFINITY),
    )


L1, SLIMMING = "Pruned by the L1 norm", "Pruned by the scales of normalisations"

EXPERIMENT = Experiment(
    "rethinking",
    "Pruned networks: fine-tuning against training the smaller shape from scratch",
    "Liu et al. 2019, [Rethinking the value of network pruning](https://arxiv.org/abs/"
    "1810.05270)",
    _scales(),
    run,
    (
        _no_worse("l1", L1, "scratch-E", "93.62 against 93.41 % (VGG-16)", "table 1"),
        effect(
            f"{L1}, scratch-B is better than fine-tuning",
            published="93.78 (from memory) against 93.41 % (VGG-16)",
            source="table 1",
            value="l1: scratch-B over tuned",
            size=0.37,
            unit="pp",
        ),
        *(
            _no_worse(
                "slimming",
                SLIMMING,
                way,
                f"{accuracy:.2f} against 93.60 % (VGG-19, 70 % pruned)",
                "table 4",
            )
            for way, accuracy in {"scratch-E": 93.3, "scratch-B": 93.81}.items()
        ),
        Claim(
            f"{L1} and fine-tuned, the network is at most half a point below the dense "
            "one",
            published="93.41 against 93.63 % (VGG-16)",
            source="table 1",
            value="l1: tuned over dense",
            reproduced=(-0.5, INFINITY),
            unit="pp",
            sign=(-1.5, INFINITY),
        ),
    ),
)
