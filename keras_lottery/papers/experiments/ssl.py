"""Wen et al.: a group lasso makes filters and shapes of LeNet-5 zero."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_lottery.compress import load_compressed, save_compressed
from keras_lottery.in_fit.callbacks import GroupLasso
from keras_lottery.keras_bridge.layers import get_masks, mask_model, set_state
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
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, LABELS
from keras_lottery.papers.experiments.networks import small_conv
from keras_lottery.papers.experiments.scales import of_length
from keras_lottery.papers.experiments.smaller import accuracy, pruned
from keras_lottery.papers.experiments.training import Trained
from keras_lottery.papers.models import Recipe
from keras_lottery.structured import multiply_adds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CONVOLUTIONS = ("conv_1", "conv_2")
STRENGTHS: dict[str, dict[str, float]] = {
    "filter": {"conv_1": 0.1, "conv_2": 0.2},
    "shape": {"conv_*": 0.05},
}
"""The strengths of the lasso, by groups and layer.

The paper adds its 0.005 to the gradient, and the momentum of 0.9 makes the effect ten
times as large; our proximal step has no momentum. Filters need a larger strength still:
with the paper's, 7 of 20 and 39 of 50 filters are left.
"""
IN_SHORT = {"conv_*": 1.0}
"""The strengths of the smoke scale, where some groups must reach zero in 40 steps."""
DROPS = (0.6, 0.8)
"""When the learning rate drops, as shares of a training without the lasso."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Trains dense networks, trains them with the lasso, and fine-tunes them.

    For comparison, the same number of filters with the smallest norms is pruned at
    once.
    """
    import pandas as pd

    rows = []
    for replicate in lab.replicates:
        dense = lab.train(f"dense_{replicate}", replicate=replicate)
        rows.append(
            {
                "replicate": replicate,
                "dense": 100 * dense.metrics[FINAL],
                **by_filters(lab, dense, replicate),
                **by_shapes(lab, dense, replicate),
            }
        )
    table = pd.DataFrame(rows)
    lab.table("replicates", table.round(3))
    lab.figure("ssl", _figure(table))
    values = {name: table[name].to_numpy() for name in table if name != "replicate"}
    return {
        **values,
        "filters over dense": values["filters"] - values["dense"],
        "shapes over dense": values["shapes"] - values["dense"],
        "filters over at once": values["filters"] - values["at once"],
        "file over dense": values["file"] - values["dense"],
    }


def by_filters(lab: Lab, dense: Trained, replicate: int) -> dict[str, float]:
    """Removes the filters that the lasso has made zero, and fine-tunes the network."""
    state = _lasso(lab, "filter", dense, replicate).final
    kernels = {name: state[f"{name}/kernel"] for name in CONVOLUTIONS}
    zero = {n: float((k == 0).all((0, 1, 2)).mean()) for n, k in kernels.items()}
    # A layer keeps at least one filter, even if the lasso leaves none.
    rates = {n: min(zero[n], 1 - 1 / k.shape[-1]) for n, k in kernels.items()}
    found = pruned(lab, state, rates, "l2", replicate)
    tuned = lab.train(
        f"filter_tuned_{replicate}",
        found.weights,
        replicate=replicate,
        model=found.model,
    )
    least = pruned(lab, dense.final, rates, "l1", replicate)
    at_once = lab.train(
        f"at_once_{replicate}",
        least.weights,
        replicate=replicate,
        recipe=_recipe(lab, 2 * lab.recipe.steps),
        model=least.model,
    )
    left = {name: 1 - rate for name, rate in rates.items()}
    lasso = accuracy(lab, found.network)
    set_state(found.network, tuned.final)
    path = lab.directory / f"filters_{replicate}.klc"
    report = save_compressed(mask_model(found.network), path)
    loaded = load_compressed(path)
    loaded.compile(loss=found.network.loss, metrics=["accuracy"])
    return {
        "filters of conv_1": left["conv_1"] * kernels["conv_1"].shape[-1],
        "filters of conv_2": left["conv_2"] * kernels["conv_2"].shape[-1],
        "filters: FLOPs of conv_2": 100 * left["conv_1"] * left["conv_2"],
        "FLOPs": 100 * multiply_adds(found.network) / multiply_adds(found.whole),
        "filters, not tuned": lasso,
        "filters": 100 * tuned.metrics[FINAL],
        "at once": 100 * at_once.metrics[FINAL],
        "file": accuracy(lab, loaded),
        "bytes": report.bytes,
        "file smaller": 4 * found.model.masks.size / report.bytes,
    }


def by_shapes(lab: Lab, dense: Trained, replicate: int) -> dict[str, float]:
    """Masks the kernel positions that the lasso has made zero, and fine-tunes."""
    lasso = _lasso(lab, "shape", dense, replicate)
    model, _ = lab.model(replicate)
    masks = {name: mask.copy() for name, mask in get_masks(model).items()}
    for layer in CONVOLUTIONS:
        name = f"{layer}/kernel"
        masks[name] &= (lasso.final[name] != 0).any(axis=-1, keepdims=True)
    tuned = lab.train(
        f"shape_tuned_{replicate}",
        lasso.final,
        Masks(masks),
        replicate=replicate,
    )
    columns = {n: masks[f"{n}/kernel"].any(axis=-1) for n in CONVOLUTIONS}
    return {
        "shapes of conv_1": int(columns["conv_1"].sum()),
        "shapes of conv_2": int(columns["conv_2"].sum()),
        "shapes: FLOPs of conv_2": 100 * float(columns["conv_2"].mean()),
        "shapes, not tuned": 100 * lasso.metrics[FINAL],
        "shapes": 100 * tuned.metrics[FINAL],
    }


def _lasso(lab: Lab, groups: Any, dense: Trained, replicate: int) -> Trained:
    """Trains the dense network further, with the lasso, at a constant learning rate."""
    recipe = dataclasses.replace(lab.recipe, drops=())
    strengths = STRENGTHS[groups] if lab.scale.is_faithful else IN_SHORT
    return lab.train(
        f"{groups}_{replicate}",
        dense.final,
        replicate=replicate,
        recipe=recipe,
        callbacks=[GroupLasso(strengths, groups)],
    )


def _recipe(lab: Lab, steps: int) -> Recipe:
    return of_length(lab.recipe, steps, lab.recipe.eval_freq, DROPS)


def _figure(table: "pd.DataFrame") -> "Figure":
    """Accuracy against the remaining FLOPs of the second convolution."""
    import pandas as pd

    parts = [
        pd.DataFrame({"way": "dense", "left": 100.0, "accuracy": table["dense"]}),
        *(
            pd.DataFrame(
                {
                    "way": way,
                    # Each way is one point, with bars over replicates.
                    "left": table[f"{left}: FLOPs of conv_2"].mean(),
                    "accuracy": table[way],
                }
            )
            for way, left in (
                ("filters", "filters"),
                ("at once", "filters"),
                ("shapes", "shapes"),
            )
        ),
    ]
    return lines(
        pd.concat(parts, ignore_index=True),
        "left",
        "accuracy",
        LABELS[FINAL],
        "way",
        x_label="FLOPs left of conv_2 (%)",
    )


def _small(groups: str, printed: str, table: str) -> Claim:
    return Claim(
        f"With a lasso on {groups}, the second convolution keeps at most 10 % of its "
        "FLOPs",
        published=printed,
        source=f"{table}; the strength is ours",
        value=f"{groups}: FLOPs of conv_2",
        reproduced=(0, 10),
        unit="%",
    )


def _accurate(groups: str, printed: str, table: str) -> Claim:
    return Claim(
        f"With a lasso on {groups}, accuracy is at most 0.1 points below the dense "
        "network's",
        published=printed,
        source=table,
        value=f"{groups} over dense",
        reproduced=(-0.1, INFINITY),
        unit="pp",
        sign=(-0.3, INFINITY),
    )


_RECIPE = dataclasses.replace(
    models.recipe("lenet_5"),
    optimizer="sgd",
    learning_rate=0.01,
    momentum=0.9,
    batch_size=64,
    steps_per_execution=1,
)
EPOCH = 859
"""The number of steps in an epoch: 55,000 images in batches of 64."""

EXPERIMENT = Experiment(
    "ssl",
    "A group lasso removes filters and shapes of LeNet-5",
    "Wen et al. 2016, [Learning structured sparsity in deep neural networks]("
    "https://arxiv.org/abs/1608.03665)",
    {
        "smoke": Scale(
            "seconds",
            "digits",
            small_conv,
            of_length(_RECIPE, 40, 20, DROPS),
            replicates=1,
            levels=1,
            is_faithful=False,
        ),
        "cpu": Scale(
            "18 trainings of 3,436 and 6,872 steps, about 20 minutes on 2 cores",
            "mnist",
            "lenet_5",
            of_length(_RECIPE, 4 * EPOCH, EPOCH, DROPS),
            replicates=3,
            levels=1,
        ),
        "paper": Scale(
            "30 trainings of 10,308 and 20,616 steps",
            "mnist",
            "lenet_5",
            of_length(_RECIPE, 12 * EPOCH, EPOCH, DROPS),
            replicates=5,
            levels=1,
        ),
    },
    run,
    (
        _small("filters", "7.6 and 3.6 %", "table 1"),
        _accurate("filters", "+0.1 and -0.1 pp", "table 1"),
        _small("shapes", "8.2 and 2.8 %", "table 2"),
        _accurate("shapes", "+0.1 and -0.1 pp", "table 2"),
        effect(
            "A lasso on filters beats pruning as many filters of small norm at once, "
            "trained for as long",
            published="open",
            source="the paper has no such comparison on LeNet",
            value="filters over at once",
            size=0,
            unit="pp",
        ),
        Claim(
            "The file of the smaller network is as accurate as the dense network",
            published="open",
            source="the paper counts FLOPs alone",
            value="file over dense",
            reproduced=(-0.1, INFINITY),
            unit="pp",
            sign=(-0.3, INFINITY),
        ),
        Claim(
            "The file of the smaller network is at least 5 times smaller than the "
            "dense weights",
            published="open",
            source="the paper counts FLOPs alone",
            value="file smaller",
            reproduced=(5, INFINITY),
            unit="times",
        ),
    ),
)
