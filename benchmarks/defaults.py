"""The defaults of `mask_model` and of `allocation="global"`, held against others.

    TFDS_DATA_DIR=... python benchmarks/defaults.py [--images 5000] [--epochs 6]
                      [--replicates 3] [--sparsities 0.8 0.9] [--out runs/defaults]

Trains five architectures on a part of CIFAR-10 while `GradualPruning` prunes them, by
each of the variants below, and prints the test accuracy and the emptiest layer. Each
training is a line of a file, and is not done again: the command goes on where it
stopped. `--only` and `--variants` choose.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd
from keras import layers

import keras_lottery as kl

Tensor = keras.KerasTensor


def with_kernel(layer: keras.layers.Layer) -> bool:
    """What was masked: depthwise kernels too."""
    return not isinstance(layer, layers.Embedding)


# Arguments of `mask_model`, and the allocation; `None` is a dense training.
VARIANTS: dict[str, tuple[dict[str, Any], Any]] = {
    "dense": ({}, None),
    "old": ({"prunable": with_kernel}, kl.allocation.Global(floor=0)),
    "no floor": ({}, kl.allocation.Global(floor=0)),
    "new": ({}, "global"),
    "floor 0.3": ({}, kl.allocation.Global(floor=0.3)),
    "uniform": ({}, "uniform"),
}


def conv(x: Tensor, filters: int, size: int = 3, strides: int = 1) -> Tensor:
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
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
            y = layers.Conv2D(width // 8, 1, activation="relu")(y)
            x = layers.Multiply()([x, layers.Conv2D(width, 1, activation="sigmoid")(y)])
        x = layers.ReLU()(conv(x, filters, 1))
    return layers.GlobalAveragePooling2D()(x)


def squeeze_and_excite(x: Tensor) -> Tensor:
    return depthwise(x, gate=True)


def lenet(x: Tensor) -> Tensor:
    x = layers.Flatten()(x)
    return layers.Dense(100, "relu")(layers.Dense(300, "relu")(x))


ARCHITECTURES = (plain, residual, depthwise, squeeze_and_excite, lenet)


def train(
    build: Callable[[Tensor], Tensor], variant: str, sparsity: float, seed: int, data, o
) -> dict[str, Any]:
    """One training: the test accuracy, and the emptiest layer of the last ticket."""
    arguments, allocation = VARIANTS[variant]
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(data.input_shape)
    model = keras.Model(inputs, layers.Dense(data.classes)(build(inputs)))
    model = kl.mask_model(model, **arguments)
    order = np.random.default_rng(seed).permutation(len(data.x_train))[: o.images]
    steps = o.epochs * (len(order) // 64)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = []
    if allocation is not None:
        callbacks = [
            kl.GradualPruning(
                sparsity, steps // 4, 3 * steps // 4, 20, allocation=allocation
            )
        ]
    model.fit(
        data.x_train[order],
        data.y_train[order],
        64,
        o.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    density = {name: float(mask.mean()) for name, mask in kl.get_masks(model).items()}
    emptiest = min(density, key=density.__getitem__)
    return {
        "accuracy": model.evaluate(*data.test, batch_size=500, verbose=0)[1],
        "sparsity_reached": kl.get_sparsity(model),
        "emptiest": emptiest,
        "its_density": density[emptiest],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="cifar10")
    add("--images", type=int, default=5000)
    add("--epochs", type=int, default=6)
    add("--replicates", type=int, default=3)
    add("--sparsities", type=float, nargs="+", default=[0.8, 0.9])
    add("--only", nargs="+", default=[build.__name__ for build in ARCHITECTURES])
    add("--variants", nargs="+", default=["dense", "old", "new"], choices=VARIANTS)
    add("--out", type=Path, default=Path("runs/defaults"))
    o = parser.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    path = o.out / "defaults.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    data = kl.data.load(o.data)
    for replicate in range(o.replicates):
        for build in ARCHITECTURES:
            for variant in o.variants:
                for sparsity in o.sparsities[: 1 if variant == "dense" else None]:
                    key = {
                        "architecture": build.__name__,
                        "variant": variant,
                        "sparsity": 0.0 if variant == "dense" else sparsity,
                        "replicate": replicate,
                        "images": o.images,
                        "epochs": o.epochs,
                    }
                    done = any(key.items() <= row.items() for row in rows)
                    if build.__name__ not in o.only or done:
                        continue
                    row = key | train(build, variant, sparsity, replicate, data, o)
                    rows.append(row)
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    table = pd.DataFrame(rows)
    table = table[(table.images == o.images) & (table.epochs == o.epochs)]
    table = table.groupby(["architecture", "sparsity", "variant"], sort=False).agg(
        accuracy=("accuracy", "mean"),
        deviation=("accuracy", "std"),
        replicates=("accuracy", "size"),
        least_density=("its_density", "min"),
    )
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
