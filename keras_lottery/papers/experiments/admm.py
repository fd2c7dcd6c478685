"""Zhang et al. and Ren et al.: LeNet-5, pruned and quantised by ADMM."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from keras_lottery.compress import load_compressed, save_compressed
from keras_lottery.in_fit.callbacks import ADMMPruning, SharedWeights
from keras_lottery.in_fit.callbacks.common import Configured
from keras_lottery.keras_bridge.layers import set_state
from keras_lottery.masks import Masks
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL
from keras_lottery.papers.experiments.scales import lenet, of_length
from keras_lottery.papers.experiments.training import Trained
from keras_lottery.pruning import masks_after

ZHANG = (
    "Zhang et al. 2018, [A systematic DNN weight pruning framework using alternating "
    "direction method of multipliers](https://arxiv.org/abs/1804.03294)"
)
REN = (
    "Ren et al. 2019, [ADMM-NN: an algorithm-hardware co-design framework of DNNs "
    "using alternating direction method of multipliers](https://arxiv.org/abs/"
    "1812.11677)"
)
FEWER = {"admm_pruning": 71.2, "admm_nn": 85.0}
"""The factor by which there are fewer weights."""
BITS: dict[str, Any] = {"lenet_5": {"conv*": 3, "*": 2}}
"""Bits of the quantisation levels; 2 in other networks."""
GROWTH = 1.3
"""The growth of rho. The papers train long enough for a constant rho."""
DROPS = (0.6, 0.85)
"""Where the learning rate drops, as shares of a training; the papers print none."""


def run_pruning(lab: Lab) -> Mapping[str, Values]:
    """Trains, prunes by ADMM and fine-tunes; compares it with pruning at once."""
    rows: list[dict[str, float]] = []
    for replicate in lab.replicates:
        dense = lab.train(f"dense_{replicate}", replicate=replicate)
        sparsity = 1 - 1 / FEWER["admm_pruning"]
        pruned, tuned, masks = by_admm(lab, dense, sparsity, replicate)
        at_once, _ = largest(lab, dense, sparsity, replicate)
        once = _on(lab, "at_once", dense, replicate, at_once, length=2)
        rows.append(
            {
                "replicate": replicate,
                "fewer": masks.size / masks.kept,
                "dense": _accuracy(dense),
                "pruned": _accuracy(pruned),
                "tuned": _accuracy(tuned),
                "at once, tuned": _accuracy(once),
            }
        )
    columns = _table(lab, rows)
    return {
        **columns,
        "over dense": columns["tuned"] - columns["dense"],
        "over at once": columns["tuned"] - columns["at once, tuned"],
    }


def run_quantisation(lab: Lab) -> Mapping[str, Values]:
    """Prunes and fine-tunes, quantises, trains the levels, and measures the file."""
    rows: list[dict[str, float]] = []
    for replicate in lab.replicates:
        dense = lab.train(f"dense_{replicate}", replicate=replicate)
        sparsity = 1 - 1 / FEWER["admm_nn"]
        _, tuned, masks = by_admm(lab, dense, sparsity, replicate)
        bits = BITS.get(str(lab.scale.model), 2)
        to_levels = _admm(lab, sparsity, bits=bits)
        levels = _on(lab, "levels", tuned, replicate, masks, to_levels)
        shared = _on(lab, "shared", levels, replicate, masks, SharedWeights())
        model, _ = lab.model(replicate)
        set_state(model, shared.final, masks)
        path = lab.directory / f"{lab.scale.model}_{replicate}.klc"
        report = save_compressed(model, path, float16=True)
        x, labels = lab.splits.test
        classes = load_compressed(path).predict(x, batch_size=1000, verbose=0)
        dense_bytes = 4 * masks.size
        rows.append(
            {
                "replicate": replicate,
                "fewer": masks.size / masks.kept,
                "dense": _accuracy(dense),
                "tuned": _accuracy(tuned),
                "on levels": _accuracy(levels),
                "levels trained": _accuracy(shared),
                "file": 100 * float(np.mean(classes.argmax(axis=-1) == labels)),
                "bytes": report.bytes,
                "data bytes": report.data_bytes,
                "index bytes": report.index_bytes,
                "data smaller": dense_bytes / report.data_bytes,
                "file smaller": dense_bytes / report.bytes,
            }
        )
    columns = _table(lab, rows)
    return {**columns, "file over tuned": columns["file"] - columns["tuned"]}


def by_admm(
    lab: Lab, dense: Trained, sparsity: float, replicate: int
) -> tuple[Trained, Trained, Masks]:
    """A dense network pruned by ADMM, then fine-tuned, and its masks."""
    masks, every = largest(lab, dense, sparsity, replicate)
    pruned = _on(lab, "admm", dense, replicate, every, _admm(lab, sparsity))
    masks = Masks({name: pruned.final[name] != 0 for name in masks})
    return pruned, _on(lab, "tuned", pruned, replicate, masks), masks


def largest(
    lab: Lab, dense: Trained, sparsity: float, replicate: int
) -> tuple[Masks, Masks]:
    """The masks of the largest weights, and those of all weights."""
    model, _ = lab.model(replicate)
    set_state(model, dense.final)
    masks = masks_after(model, sparsity)
    return masks, Masks.dense({name: mask.shape for name, mask in masks.items()})


def _update(lab: Lab) -> int:
    """Steps from one update of Z and U to the next."""
    return max(1, lab.recipe.steps // 4)


def _admm(lab: Lab, sparsity: float, **how: Any) -> ADMMPruning:
    return ADMMPruning(sparsity, growth=GROWTH, frequency=_update(lab), **how)


def _on(
    lab: Lab,
    name: str,
    start: Trained,
    replicate: int,
    masks: Masks,
    *callbacks: Configured,
    length: int = 1,
) -> Trained:
    """Trains for as many updates as the scale has levels, or a multiple of them."""
    steps = length * lab.scale.levels * _update(lab)
    return lab.train(
        f"{name}_{replicate}",
        start.final,
        masks,
        replicate=replicate,
        recipe=of_length(lab.recipe, steps, lab.recipe.eval_freq, DROPS),
        callbacks=callbacks,
    )


def _accuracy(trained: Trained) -> float:
    return 100 * trained.metrics[FINAL]


def _table(lab: Lab, rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Keeps the table of replicates, and returns its columns."""
    import pandas as pd

    table = pd.DataFrame(rows)
    lab.table("replicates", table.round(3))
    return {name: table[name].to_numpy() for name in table if name != "replicate"}


def _scales(trainings: int, minutes: str) -> dict[str, Scale]:
    """LeNet-5 on MNIST; LeNet-300-100 on digits, which are too small for LeNet-5."""
    recipe = dataclasses.replace(models.recipe("lenet_5"), learning_rate=1e-3)
    cpu = of_length(dataclasses.replace(recipe, batch_size=128), 1720, 430, DROPS)
    paper = of_length(dataclasses.replace(recipe, batch_size=50), 20_000, 1000, DROPS)
    mnist = partial(Scale, data="mnist", model="lenet_5")
    return {
        "smoke": lenet("", "", levels=2)["smoke"],
        "cpu": mnist(
            f"{3 * trainings} trainings, most of 6,450 steps, {minutes} on 2 cores",
            recipe=cpu,
            replicates=3,
            levels=15,
        ),
        "paper": mnist(
            f"{5 * trainings} trainings, most of 150,000 steps",
            recipe=paper,
            replicates=5,
            levels=30,
        ),
    }


PRUNING = Experiment(
    "admm_pruning",
    "LeNet-5 pruned by ADMM to 71 times fewer weights",
    ZHANG,
    _scales(4, "about 25 minutes"),
    run_pruning,
    (
        Claim(
            "With 71.2 times fewer weights, test accuracy stays near 99.2 %",
            published="99.2 %",
            source="table 1 (after a far longer training)",
            value="tuned",
            reproduced=(99.0, 100),
            unit="%",
        ),
        Claim(
            "With 71.2 times fewer weights, the network is no worse than the dense one",
            published="no accuracy loss",
            source="section 4.1",
            value="over dense",
            reproduced=(-0.1, INFINITY),
            unit="pp",
            sign=(-0.3, INFINITY),
        ),
        effect(
            "ADMM beats pruning by magnitude at once, fine-tuned for as long",
            published="higher rates than earlier work",
            source="table 1",
            value="over at once",
            size=0,
            unit="pp",
        ),
    ),
)

QUANTISATION = Experiment(
    "admm_nn",
    "LeNet-5 with 85 times fewer weights, of two or three bits each, as a file",
    REN,
    _scales(5, "about 30 minutes"),
    run_quantisation,
    (
        Claim(
            "With 85 times fewer weights, test accuracy stays near 99.2 %",
            published="85 times, no accuracy loss",
            source="abstract",
            value="tuned",
            reproduced=(99.0, 100),
            unit="%",
        ),
        Claim(
            "Quantisation to 3 bits (convolutions) and 2 bits costs no accuracy",
            published="no accuracy loss",
            source="abstract",
            value="file over tuned",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        Claim(
            "The weights alone, without their positions, take 1,910 times fewer bits",
            published="1,910 times",
            source="abstract",
            value="data smaller",
            reproduced=(1719, INFINITY),
            unit="times",
            sign=(100, INFINITY),
        ),
        Claim(
            "The file, with positions, code books, biases and architecture, is more "
            "than 208 times smaller than the dense weights",
            published="open",
            source="docs/guides/deploy.md has 208 times",
            value="file smaller",
            reproduced=(208, INFINITY),
            unit="times",
        ),
        Claim(
            "The model read from the file has at least 99.0 % accuracy",
            published="open",
            source="Deep Compression: 39 times smaller at 99.26 %",
            value="file",
            reproduced=(99.0, 100),
            unit="%",
        ),
    ),
)

EXPERIMENTS = (PRUNING, QUANTISATION)
