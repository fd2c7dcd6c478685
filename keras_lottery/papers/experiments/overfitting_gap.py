"""An open question: do tickets overfit less, and are they more robust?"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.keras_bridge.layers import set_state
from keras_lottery.papers.experiments.experiment import Experiment, Values, effect
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import at
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.study.analysis import generalisation_gap

if TYPE_CHECKING:
    import pandas as pd

NOISE = (0.2, 0.4, 0.6)
"""Standard deviations of the noise that is added to images in [0, 1]."""
SHIFTS = (1, 2)
"""Pixels that images are moved by, up, down, left and right."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Measures the generalisation gap, and accuracy on noisy and on moved images."""
    import pandas as pd

    search = lab.search("iterative", rate=0.5, controls=["reinit"])
    gaps = generalisation_gap(search).assign(gap=lambda t: 100 * t["gap"])
    lab.table("gap", gaps)
    label = "train less test accuracy (pp)"
    lab.figure("gap", lines(gaps, "density", "gap", label, "variant"))
    x, y = lab.splits.test
    rows = []
    for replicate in lab.replicates:
        model, _ = lab.model(replicate)
        for level in range(lab.scale.levels + 1):
            ticket = search.ticket(level, replicate)
            assert ticket.trained is not None
            set_state(model, ticket.trained, ticket.masks)
            for name, images in disturbed(x, np.random.default_rng(replicate)):
                logs = model.evaluate(images, y, 1000, verbose=0, return_dict=True)
                accuracy = 100 * logs["accuracy"]
                rows.append((ticket.masks.density, name, replicate, accuracy))
    names = ["density", "images", "replicate", "accuracy"]
    table = pd.DataFrame(rows, columns=names).assign(variant="ticket")
    lab.table("robustness", table)
    label = "test accuracy (%)"
    lab.figure("robustness", lines(table, "density", "accuracy", label, "images"))
    keys = ["variant", "replicate", "density"]
    left = table.pivot_table("accuracy", keys, "images").reset_index()
    lost = left.assign(noise=left["as they are"] - left["noise 0.4"])
    lost = lost.assign(shift=left["as they are"] - left["moved by 1"])
    equal = as_accurate(search.results())
    return {
        "gap": at(gaps, 1.0, "gap") - at(gaps, 0.128, "gap"),
        "density": 100 * equal,
        "noise": at(lost, 1.0, "noise") - at(lost, equal, "noise"),
        "shift": at(lost, 1.0, "shift") - at(lost, equal, "shift"),
    }


def disturbed(
    x: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Images as they are, with noise, and moved, each with the name of the change."""
    yield "as they are", x
    for noise in NOISE:
        yield f"noise {noise}", x + noise * rng.standard_normal(x.shape, np.float32)
    for pixels in SHIFTS:
        for down, right in ((pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)):
            yield f"moved by {pixels}", moved(x, down, right)


def moved(x: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images moved by a number of pixels, with zeros in the empty places.

    >>> moved(np.arange(1, 5).reshape(1, 2, 2, 1), 0, 1)[0, :, :, 0].tolist()
    [[0, 1], [0, 3]]
    """
    most = max(abs(down), abs(right))
    padded = np.pad(x, ((0, 0), (most, most), (most, most), (0, 0)))
    top, left = most - down, most - right
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def as_accurate(results: "pd.DataFrame") -> float:
    """The density of the sparsest tickets as accurate as the dense network, or NaN.

    They are chosen by their mean accuracy at the end on the validation data, so that
    the test data play no part in the choice.
    """
    tickets = results[results["variant"] == "ticket"]
    means = tickets.groupby("density")["final_val_accuracy"].mean()
    equal = means[means >= means.loc[means.index.max()]].index.min()
    return float(equal) if equal < means.index.max() else np.nan


EXPERIMENT = Experiment(
    "overfitting_gap",
    "Do tickets overfit less, and tolerate more noise and shifts?",
    f"An open question, from section 5 of {PAPER}",
    lenet(
        cpu="33 trainings of 7,328 steps, about 4 minutes on 2 cores",
        paper="55 trainings of 50,000 steps",
        levels=5,
    ),
    run,
    (
        effect(
            "The gap between training and test accuracy is smaller for tickets of 13 %",
            published="smaller",
            source="section 5",
            value="gap",
            size=0,
            unit="pp",
        ),
        *(
            effect(
                f"{disturbance} costs the sparsest ticket that matches the dense "
                "network less accuracy than the dense network",
                published="open",
                source="no published figure",
                value=value,
                size=0,
                unit="pp",
            )
            for disturbance, value in (
                ("Noise of standard deviation 0.4", "noise"),
                ("A shift by one pixel", "shift"),
            )
        ),
    ),
)
