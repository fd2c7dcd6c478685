"""An open question: do a ResNet's tickets overfit less, and are they more robust?"""

from collections.abc import Mapping
from functools import partial

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import set_state
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import Experiment, Values, effect
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.fine_tuning import DROPS
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, at
from keras_lottery.papers.experiments.overfitting_gap import moved
from keras_lottery.papers.experiments.scales import cifar_10, narrow_resnet
from keras_lottery.papers.models.deep import EPOCH
from keras_lottery.study.analysis import (
    calibration_error,
    fast_gradient_sign,
    generalisation_gap,
)
from keras_lottery.tickets.allocation import Global

SPARSITIES = (0.5, 0.8, 0.9)
DENSITIES = (0.2, 0.1)
"""The densities that are compared with the dense network."""
NOISE = 0.05
"""The standard deviation of the noise that is added to images in [0, 1]."""
ATTACK = 1 / 255
"""How far an attack moves each value of an image."""
SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""The shifts of an image, in pixels down and pixels right."""
BATCH_SIZE = 1000
LOST = {
    "gap": "training minus test accuracy (pp)",
    "calibration": "expected calibration error (%)",
    "noise": f"lost to noise of {NOISE} (pp)",
    "shift": "lost to a shift of one pixel (pp)",
    "attack": "lost to an attack of 1/255 (pp)",
}
"""The measures in words; lower values are better."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Measures the dense network, and its tickets that are rewound to an early step."""
    import pandas as pd

    search = lab.search(
        "iterative",
        schedule=SPARSITIES[: lab.scale.levels],
        allocation=Global(floor=0),
        rewind_to=lab.recipe.steps // 8,
    )
    lab.compare("accuracy", {"iterative": search}, FINAL)
    rows = []
    for replicate in lab.replicates:
        model, _ = lab.model(replicate)
        for level in range(lab.scale.levels + 1):
            ticket = search.ticket(level, replicate)
            assert ticket.trained is not None
            set_state(model, ticket.trained, ticket.masks)
            found = losses(model, *lab.splits.test, replicate)
            rows.append({"level": level, "replicate": replicate, **found})
    gaps = generalisation_gap(search).assign(gap=lambda table: 100 * table["gap"])
    found = gaps[["level", "density", "variant", "replicate", "gap"]]
    table = found.merge(pd.DataFrame(rows), on=["level", "replicate"])
    lab.table("robustness", table)
    drawn = table.rename(columns=LOST).melt(
        ["density", "replicate"], list(LOST.values()), "measure", "value"
    )
    lab.figure(
        "robustness",
        lines(drawn, "density", "value", "", panels="measure", same_scale=False),
    )
    return {
        f"{name} {100 * density:.0f}": at(table, 1.0, name) - at(table, density, name)
        for name in LOST
        for density in DENSITIES
    }


def losses(
    model: keras.Model, x: np.ndarray, y: np.ndarray, seed: int
) -> dict[str, float]:
    """The calibration error of a classifier, and the accuracies that it loses, in %.

    Args:
        model: a model that returns logits.
        x, y: images in [0, 1], and their classes.
        seed: the seed of the noise.
    """

    def logits(images: np.ndarray) -> np.ndarray:
        return model.predict(images, BATCH_SIZE, verbose=0)

    def accuracy(images: np.ndarray) -> float:
        return 100 * float(np.mean(logits(images).argmax(1) == y))

    clean = accuracy(x)
    noise = np.random.default_rng(seed).standard_normal(x.shape, np.float32)
    attack = fast_gradient_sign(model, (x, y), ATTACK, BATCH_SIZE)
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits(x)))
    return {
        "calibration": 100 * calibration_error(probabilities, y),
        "noise": clean - accuracy(x + NOISE * noise),
        "shift": clean - float(np.mean([accuracy(moved(x, *by)) for by in SHIFTS])),
        "attack": clean - accuracy(np.clip(attack, 0, 1)),
    }


CLAIMS = {
    "gap": "The gap between training and test accuracy is smaller for tickets of {} %",
    "calibration": "The calibration error is smaller for tickets of {} %",
    "noise": f"Noise of standard deviation {NOISE} costs tickets of {{}} % less "
    "accuracy than the dense network",
    "shift": "A shift of one pixel costs tickets of {} % less accuracy than the dense "
    "network",
    "attack": "An attack by the sign of the gradient (1/255) costs tickets of {} % "
    "less accuracy than the dense network",
}

EXPERIMENT = Experiment(
    "overfitting_gap_resnet_20",
    "Do a ResNet's tickets overfit less, and are they better calibrated and more "
    "robust?",
    f"An open question, from section 5 of {PAPER}. Calibration error: Guo et al. 2017, "
    "[On calibration of modern neural networks](https://arxiv.org/abs/1706.04599). "
    "Attack: Goodfellow et al. 2015, [Explaining and harnessing adversarial examples]("
    "https://arxiv.org/abs/1412.6572)",
    {
        **cifar_10(
            "resnet_20",
            "20 trainings of 49,140 to 52,650 steps, hours on a GPU",
            levels=3,
            small=partial(models.resnet, 8),
            learning_rate=0.1,
            steps=150 * EPOCH,
            drops=(80 * EPOCH, 120 * EPOCH),
        ),
        "cpu": narrow_resnet(
            "12 trainings of 3,500 to 4,000 steps, about 15 minutes on 2 cores",
            levels=3,
            drops=DROPS,
        ),
    },
    run,
    tuple(
        effect(
            words.format(f"{100 * density:.0f}"),
            published="smaller" if name == "gap" else "open",
            source="section 5" if name == "gap" else "no published figure",
            value=f"{name} {100 * density:.0f}",
            size=0,
            unit="%" if name == "calibration" else "pp",
        )
        for name, words in CLAIMS.items()
        for density in DENSITIES
    ),
)
