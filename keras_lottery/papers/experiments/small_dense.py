"""An open question: can a ticket's layer densities design a smaller dense network?"""

from collections.abc import Mapping

from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.experiment import Experiment, Values, effect
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.networks import dense
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.study.analysis import layer_densities


def widths(masks: Masks) -> list[int]:
    """Widths of hidden layers whose dense kernels have as many weights as a ticket.

    >>> import numpy as np
    >>> masks = Masks({"hidden_1/kernel": np.ones((4, 6)) > 0,
    ...                "output/kernel": np.eye(6, 2) > 0})
    >>> widths(masks)
    [6]
    """
    table = layer_densities(masks).query("weight != 'total'")
    inputs = next(iter(masks.values())).shape[0]
    designed: list[int] = []
    for kept in table["kept"].iloc[:-1]:
        designed.append(max(1, round(kept / (designed or [inputs])[-1])))
    return designed


def run(lab: Lab) -> Mapping[str, Values]:
    """Trains tickets, and dense networks with as many weights in each layer."""
    import pandas as pd

    search = lab.search("iterative", rate=0.5, controls=["reinit"])
    rows = []
    for _, row in search.results().iterrows():
        accuracy = 100 * row["early_stop_test_accuracy"]
        rows.append((row["variant"], row["density"], row["replicate"], accuracy, ""))
    gains = []
    for level in range(1, lab.scale.levels + 1):
        for replicate in lab.replicates:
            ticket = search.ticket(level, replicate)
            hidden = widths(ticket.masks)
            trained = lab.train(
                f"dense_{level}_{replicate}",
                replicate=replicate,
                model=dense(hidden, "small_dense"),
            )
            accuracy = 100 * trained.metrics["early_stop_test_accuracy"]
            density = ticket.masks.density
            rows.append(("small_dense", density, replicate, accuracy, str(hidden)))
            own = 100 * ticket.card["metrics"]["early_stop_test_accuracy"]
            gains.append((level, replicate, own - accuracy))
    names = ["variant", "density", "replicate", "accuracy", "widths"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("small_dense", table)
    label = "test accuracy at the early stop (%)"
    lab.figure("small_dense", lines(table, "density", "accuracy", label, "variant"))
    middle = (lab.scale.levels + 1) // 2
    return {"gain": [gain for level, _, gain in gains if level == middle]}


EXPERIMENT = Experiment(
    "small_dense",
    "A smaller dense network with a ticket's layer densities",
    f"An open question, from sections 1 and 5 of {PAPER}",
    lenet(
        cpu="48 trainings of 7,328 steps, about 6 minutes on 2 cores",
        paper="80 trainings of 50,000 steps",
        levels=5,
    ),
    run,
    (
        effect(
            "A ticket of 13 % is more accurate than a dense network with as many "
            "weights",
            published="open",
            source="no published figure",
            value="gain",
            size=0,
            unit="pp",
        ),
    ),
)
