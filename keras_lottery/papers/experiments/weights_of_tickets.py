"""Frankle & Carbin, section 5 and appendix F: the weights that win."""

from collections.abc import Mapping

from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.frankle_carbin import PAPER
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.study.analysis import weight_histograms, weight_movement


def run(lab: Lab) -> Mapping[str, Values]:
    """Measures how far weights move in dense training, inside and outside tickets."""
    import pandas as pd

    search = lab.search("iterative")
    moved, histograms, spreads = [], [], []
    for replicate in lab.replicates:
        dense = search.ticket(0, replicate)
        assert dense.trained is not None
        for level in lab.scale.report or range(1, lab.scale.levels + 1):
            masks = search.ticket(level, replicate).masks
            where = {"density": masks.density, "replicate": replicate}
            weights = dense.weights, dense.trained, masks
            moved.append(weight_movement(*weights).assign(**where))
            if not replicate:
                histograms.append(weight_histograms(*weights).assign(**where))
        # These are the masks of the last level, the sparsest.
        spreads.append(
            {
                name: dense.weights[name][mask].std() / dense.weights[name].std()
                for name, mask in masks.items()
            }
        )
    table = pd.concat(moved, ignore_index=True)
    lab.table("movement", table)
    for quantity in ("distance", "growth"):
        part = table[table["quantity"] == quantity]
        label = f"{quantity}, mean over weights"
        lab.figure(quantity, lines(part, "density", "mean", label, "part", "weight"))
    starts = pd.concat(histograms, ignore_index=True)
    starts = starts.query(
        "quantity == 'initial' and part == 'kept' and weight != 'total'"
    ).assign(
        density=lambda t: (100 * t["density"]).round(1),
        share=lambda t: (
            t["count"] / t.groupby(["density", "weight"])["count"].transform("sum")
        ),
    )
    lab.table("initial", starts)
    columns = "low", "share", "share of the weights left", "density", "weight"
    lab.figure("initial", lines(starts, *columns, x_label="initial weight"))
    wide = table[table["weight"] == "total"].pivot_table(
        ["mean", "std"], ["replicate", "density"], ["quantity", "part"]
    )
    sparsest = wide.groupby("replicate").head(1)  # they are sorted by density
    ratios = wide["mean", "distance", "kept"] / wide["mean", "distance", "pruned"]
    return {
        "distance": ratios.groupby("replicate").min().to_numpy(),
        "growth": sparsest["mean", "growth", "kept"].to_numpy(),
        **{name: [spread[name] for spread in spreads] for name in spreads[0]},
    }


EXPERIMENT = Experiment(
    "weights_of_tickets",
    "How far the weights of winning tickets move, and where they start",
    PAPER,
    lenet(
        cpu="48 trainings of 7,328 steps, about 5 minutes on 2 cores",
        paper="80 trainings of 50,000 steps",
        levels=15,
        report=(3, 7, 11, 15),
    ),
    run,
    (
        Claim(
            "Weights of tickets move further than pruned ones (least of four levels)",
            published="further",
            source="section 5",
            value="distance",
            reproduced=(1, INFINITY),
            unit="times",
            sign=(1, INFINITY),
        ),
        effect(
            "Weights of tickets grow in magnitude",
            published="they grow (figures)",
            source="appendix F",
            value="growth",
            size=0,
            unit="",
        ),
        Claim(
            "Initial values kept in the first layer are spread like all of them (3.6 "
            "%)",
            published="alike",
            source="appendix F.1",
            value="hidden_1/kernel",
            reproduced=(0.9, 1.1),
            unit="times",
        ),
        *(
            Claim(
                f"Initial values kept in {layer} are spread more widely (3.6 %)",
                published="bimodal",
                source="appendix F.1",
                value=f"{layer}/kernel",
                reproduced=(1, INFINITY),
                unit="times",
                sign=(1, INFINITY),
            )
            for layer in ("hidden_2", "output")
        ),
    ),
)
