"""Zhang et al.: which layers a trained network can do without."""

from collections.abc import Hashable, Mapping

from keras_lottery.keras_bridge.layers import State, set_state
from keras_lottery.papers.experiments.experiment import (
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import heat_map
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.networks import dense
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.papers.experiments.training import Start
from keras_lottery.study.analysis import layer_criticality

WIDE = dense([256, 256, 256])
SHARES = (0.02, 0.05, 0.125, 0.25, 0.5)
"""Where the checkpoints are, as shares of the training."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Resets each layer to each checkpoint, and initialises it again."""
    import pandas as pd

    often, steps = lab.recipe.eval_freq, lab.recipe.steps
    checkpoints = sorted({often * max(1, round(s * steps / often)) for s in SHARES})
    parts = []
    starts = {
        str(replicate): Start(checkpoints=checkpoints, replicate=replicate)
        for replicate in lab.replicates
    }
    dense = lab.train_all("dense", starts, model=WIDE)
    for replicate, trained in zip(lab.replicates, dense.values(), strict=True):
        model, _ = lab.model(replicate, model=WIDE)
        set_state(model, trained.final)
        states: dict[Hashable, State] = {
            step: s for step, s in trained.states.items() if step < steps
        }
        part = layer_criticality(model, states, lab.splits.test, replicates=3)
        parts.append(part.assign(network=replicate))
    table = pd.concat(parts, ignore_index=True)
    lab.table("layers", table)
    left = 100 * table.assign(checkpoint=table["checkpoint"].astype(str)).pivot_table(
        "accuracy", "layer", "checkpoint", sort=False
    )
    lab.figure(
        "layers",
        heat_map(left, "test accuracy (%)", ("layer put back to step", "layer")),
    )
    lost = table[table["checkpoint"] == 0].pivot(
        index="network", columns="layer", values="drop"
    )
    drawn = table[table["checkpoint"] == "random"].pivot_table(
        "drop", "network", "layer"
    )
    return {
        "first": 100 * lost["hidden_1"].to_numpy(),
        "first over third": 100 * (lost["hidden_1"] - lost["hidden_3"]).to_numpy(),
        "third": 100 * lost["hidden_3"].to_numpy(),
        "third drawn anew": 100 * (drawn["hidden_3"] - lost["hidden_3"]).to_numpy(),
    }


EXPERIMENT = Experiment(
    "layers",
    "Which layers a trained network can do without",
    "Zhang et al. 2019, [Are all layers created equal?](https://arxiv.org/abs/"
    "1902.01996)",
    lenet(
        cpu="3 trainings of 7,328 steps, about 1 minute on 2 cores",
        paper="5 trainings of 50,000 steps",
        levels=1,
    ),
    run,
    (
        effect(
            "Resetting the first layer to its initial weights costs accuracy",
            published="critical",
            source="section 3 (MLP on MNIST)",
            value="first",
            size=0,
            unit="pp",
        ),
        effect(
            "The first layer is more critical than the third",
            published="the first is critical",
            source="section 3",
            value="first over third",
            size=0,
            unit="pp",
        ),
        Claim(
            "Resetting the third layer to its initial weights costs little accuracy",
            published="little (heat map)",
            source="section 3",
            value="third",
            reproduced=(-1, 5),
            unit="pp",
        ),
        effect(
            "New random weights for the third layer cost more than its initial weights",
            published="more",
            source="section 3",
            value="third drawn anew",
            size=0,
            unit="pp",
        ),
    ),
)
