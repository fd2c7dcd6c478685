"""Compares the defaults of `mask_model` and of `allocation="global"` with alternatives.

    TFDS_DATA_DIR=... python benchmarks/defaults.py [--images 3000] [--epochs 5]
                      [--replicates 3] [--pool 2] [--out runs/defaults]

Trains five architectures on a part of CIFAR-10, with smaller images, while
`GradualPruning` prunes them by each of the variants below, and prints the test accuracy
and the density of the sparsest layer. Each training is a line of a file, and is not
repeated: the command continues where it stopped. A floor below which no layer would
have fallen changes nothing, so the training with a lower floor counts for it. `--only`
and `--variants` choose what to train.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd
from keras import layers

import keras_lottery as kl

Tensor = keras.KerasTensor


def default(layer: keras.layers.Layer) -> bool:
    return not isinstance(layer, layers.DepthwiseConv2D)


def depthwise_too(layer: keras.layers.Layer) -> bool:
    return True


def but_the_first(layer: keras.layers.Layer) -> bool:
    return default(layer) and layer.name != "first"


def but_gates(layer: keras.layers.Layer) -> bool:
    return default(layer) and not layer.name.startswith("gate")


@dataclass(frozen=True)
class Variant:
    """A way to prune a network.

    Args:
        prunable: the argument of `mask_model`.
        floor: the argument of `Global`; `None` for a dense training.
        sparsities: the sparsities to which it is trained.
        alike: the networks that it prunes in the same way as `floor 0`; these are not
            trained.
        of_all: whether the sparsity counts all weights that the defaults prune, so that
            layers that are not pruned leave fewer weights to the others.
    """

    prunable: Callable[[keras.layers.Layer], bool] = default
    floor: float | None = 0.1
    sparsities: tuple[float, ...] = (0.8, 0.9, 0.98)
    alike: tuple[str, ...] = ()
    of_all: bool = False


UNGATED = ("plain", "residual", "depthwise", "lenet")
REGULAR = ("plain", "residual", "lenet")
VARIANTS = {
    "dense": Variant(floor=None, sparsities=(0.0,)),
    "floor 0": Variant(floor=0.0),
    "old": Variant(depthwise_too, 0.0, (0.8, 0.9), REGULAR),
    "floor 0.02": Variant(floor=0.02),
    "floor 0.05": Variant(floor=0.05),
    "new": Variant(),
    "floor 0.2": Variant(floor=0.2),
    "gates left alone": Variant(but_gates, 0.1, (0.8, 0.9), UNGATED),
    "gates left alone, as many weights": Variant(
        but_gates, 0.1, (0.8,), UNGATED, of_all=True
    ),
    "first layer left alone": Variant(but_the_first, 0.1, (0.9,)),
    "first layer left alone, as many weights": Variant(
        but_the_first, 0.1, (0.8, 0.9), of_all=True
    ),
    "depthwise too, floor 0.2": Variant(depthwise_too, 0.2, (0.9,), REGULAR),
}


def conv(x: Tensor, filters: int, size: int = 3, strides: int = 1) -> Tensor:
    name = "first" if x.shape[-1] == 3 else None
    x = layers.Conv2D(
        filters, size, strides, padding="same", use_bias=False, name=name
    )(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def plain(x: Tensor) -> Tensor:
    for filters in (32, 64, 128):
        x = layers.ReLU()(conv(x, filters, strides=2))
        x = layers.ReLU()(conv(x, filters))
    return layers.GlobalAveragePooling2D()(x)


def residual(x: Tensor) -> Tensor:
    x = layers.ReLU()(conv(x, 32, strides=2))
    for filters, strides in ((32, 1), (64, 2), (128, 2)):
        shortcut = x if strides == 1 else conv(x, filters, 1, strides)
        y = layers.ReLU()(conv(x, filters, strides=strides))
        x = layers.ReLU()(layers.Add()([conv(y, filters), shortcut]))
    return layers.GlobalAveragePooling2D()(x)


def depthwise(x: Tensor, gate: bool = False) -> Tensor:
    x = layers.ReLU()(conv(x, 32, strides=2))
    for filters, strides in ((64, 1), (128, 2), (128, 1), (256, 2)):
        x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if gate:
            width = x.shape[-1]
            y = layers.GlobalAveragePooling2D(keepdims=True)(x)
            name = f"gate_{filters}_{strides}"
            y = layers.Conv2D(width // 8, 1, activation="relu", name=f"{name}_in")(y)
            y = layers.Conv2D(width, 1, activation="sigmoid", name=f"{name}_out")(y)
            x = layers.Multiply()([x, y])
        x = layers.ReLU()(conv(x, filters, 1))
    return layers.GlobalAveragePooling2D()(x)


def squeeze_and_excite(x: Tensor) -> Tensor:
    return depthwise(x, gate=True)


def lenet(x: Tensor) -> Tensor:
    x = layers.Flatten()(x)
    return layers.Dense(100, "relu")(layers.Dense(300, "relu", name="first")(x))


ARCHITECTURES = (plain, residual, depthwise, squeeze_and_excite, lenet)


Build = Callable[[Tensor], Tensor]


class Recorded(kl.allocation.Allocation):
    """`Global`, which also records a layer's lowest density relative to the total."""

    def __init__(self, floor: float) -> None:
        self.allocation = kl.allocation.Global(floor=floor)
        self.least: list[float] = []

    def __call__(self, scores: Any, masks: Any, sparsity: float) -> Any:
        kept = self.allocation(scores, masks, sparsity)
        self.least.append(min(m.mean() / (1 - sparsity) for m in kept.values()))
        return kept


def built(build: Build, prunable: Any, shape: Any) -> keras.Model:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(10)(build(inputs)))
    return kl.mask_model(model, prunable=prunable)


@cache
def traced(build: Build, prunable: Any, shape: Any, steps: int) -> keras.Model:
    """One model for all its trainings: tracing takes as long as training."""
    model = built(build, prunable, shape)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def restarted(build: Build, prunable: Any, shape: Any, steps: int) -> keras.Model:
    """That model with new weights, dense masks and an optimizer at its first step."""
    model = traced(build, prunable, shape, steps)
    new = built(build, prunable, shape).variables
    for variable, value in zip(model.variables[: len(new)], new, strict=True):
        variable.assign(value)
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    return model


def train(
    build: Build, variant: Variant, sparsity: float, seed: int, data: Any, o: Any
) -> dict[str, Any]:
    """One training: the test accuracy, and the emptiest layer of the last ticket."""
    (x, y), test = data
    order = np.random.default_rng(seed).permutation(len(x))[: o.images]
    steps = o.epochs * -(-len(order) // 64)
    keras.utils.set_random_seed(seed)
    model = restarted(build, variant.prunable, x.shape[1:], steps)
    callbacks, allocation = [], Recorded(variant.floor or 0.0)
    if variant.of_all:
        every = kl.get_masks(built(build, default, x.shape[1:])).size
        others = kl.get_masks(model).size
        sparsity = 1 - ((1 - sparsity) * every - (every - others)) / others
        if sparsity >= 1:  # The layers that are not pruned are already too large.
            return dict.fromkeys(("accuracy", "its_density", "least_share"), np.nan)
    if variant.floor is not None:
        span = steps // 4, 3 * steps // 4, 20
        callbacks = [kl.GradualPruning(sparsity, *span, allocation=allocation)]
    model.fit(x[order], y[order], 64, o.epochs, callbacks=callbacks, verbose=0)
    density = {name: float(mask.mean()) for name, mask in kl.get_masks(model).items()}
    emptiest = min(density, key=density.__getitem__)
    return {
        "accuracy": model.evaluate(*test, batch_size=500, verbose=0)[1],
        "sparsity_reached": kl.get_sparsity(model),
        "emptiest": emptiest,
        "its_density": density[emptiest],
        # The first one is left out: before training, the callback only tries.
        "least_share": float(min(allocation.least[1:], default=1.0)),
    }


def pooled(x: np.ndarray, size: int) -> np.ndarray:
    """The means of squares of pixels."""
    n, height, width, channels = x.shape
    squares = x.reshape(n, height // size, size, width // size, size, channels)
    return squares.mean((2, 4))


def stands_for(row: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether a training equals another one, because its floor would change nothing."""
    one, other = VARIANTS[row["variant"]], VARIANTS[key["variant"]]
    if any(row[k] != key[k] for k in key.keys() - {"variant"}):
        return False
    if row["variant"] == key["variant"]:
        return True
    if one.floor is None or other.floor is None:
        return False
    same = (one.prunable, one.of_all) == (other.prunable, other.of_all) or (
        one.prunable is default and key["architecture"] in other.alike
    )
    return same and one.floor <= other.floor <= row["least_share"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="cifar10")
    add("--images", type=int, default=3000)
    add("--epochs", type=int, default=5)
    add("--pool", type=int, default=2, help="how many pixels become one, by side")
    add("--replicates", type=int, default=3)
    add("--only", nargs="+", default=[build.__name__ for build in ARCHITECTURES])
    add("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    add("--out", type=Path, default=Path("runs/defaults"))
    o = parser.parse_args()
    warnings.filterwarnings("ignore", "(Few|No) weights are left")
    o.out.mkdir(parents=True, exist_ok=True)
    path = o.out / "defaults.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    loaded = kl.data.load(o.data)
    x, x_test = (pooled(x, o.pool) for x in (loaded.x_train, loaded.x_test))
    data = (x, loaded.y_train), (x_test, loaded.y_test)
    table = []
    for replicate in range(o.replicates):
        for build in ARCHITECTURES:
            for name in o.variants:
                for sparsity in VARIANTS[name].sparsities:
                    if build.__name__ not in o.only:
                        continue
                    key = {
                        "architecture": build.__name__,
                        "variant": name,
                        "sparsity": sparsity,
                        "replicate": replicate,
                        "images": o.images,
                        "epochs": o.epochs,
                        "pool": o.pool,
                    }
                    row = next((row for row in rows if stands_for(row, key)), None)
                    if row is None:
                        began = time.process_time()
                        row = key | train(
                            build, VARIANTS[name], sparsity, replicate, data, o
                        )
                        row["cpu_s"] = round(time.process_time() - began, 1)
                        rows.append(row)
                        with path.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                        print(row, flush=True)
                    table.append(row | key)
    show(pd.DataFrame(table))


def show(table: pd.DataFrame) -> None:
    """Accuracy in %, mean and standard deviation; in brackets the least density."""
    groups = table.groupby(["variant", "sparsity", "architecture"], sort=False)

    def cell(rows: pd.DataFrame) -> str:
        mean, deviation = 100 * rows.accuracy.mean(), 100 * rows.accuracy.std()
        spread = f" ± {deviation:.1f}" if len(rows) > 1 else ""
        return f"{mean:.1f}{spread} ({100 * rows.its_density.min():.1f})"

    cells = groups.apply(cell, include_groups=False).unstack(sort=False)
    print("| | sparsity |", " | ".join(cells.columns), "|")
    print("|---" * (2 + len(cells.columns)) + "|")
    for row in cells.reset_index().itertuples(index=False):
        print("|", " | ".join(map(str, row)), "|")


if __name__ == "__main__":
    main()
