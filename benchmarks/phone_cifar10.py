"""Sparse 1x1 convolutions on ARM, on CIFAR-10: accuracy, size and emulated time.

    TFDS_DATA_DIR=... python benchmarks/phone_cifar10.py [--epochs 6] [--further 3]
                      [--replicates 3] [--out runs/phone_cifar10]

A small net like MobileNet V1, of a form that XNNPACK runs sparsely, is trained, and 70,
80 and 90 % of its 1x1 kernels are pruned, the same share of each:

- `search`: level by level from the dense weights, each for `--further` epochs;
- `gradual`: by `GradualPruning`, for `--further` epochs from the dense weights;
- `channels`: half of the channels are removed, then trained for equally long;
- `longer`: the dense net, trained further for equally long.

Accuracies are those of .tflite files on the test images. Times are those of one thread
under QEMU, as shares of the dense file's (`arm.py`); they are left out if QEMU is not
available. Trainings are kept in `--out`: the command continues where it stopped.
"""

import argparse
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import arm
import keras
import pandas as pd
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_state, set_state
from keras_lottery.ship.deploy.quality import accuracy_of

BATCH = 128
SPARSITIES = 0.7, 0.8, 0.9
# Outputs and stride of each block: depthwise 3x3, then 1x1.
BLOCKS = (64, 1), (128, 2), (128, 1), (256, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=6, help="of the dense training (%(default)s)")
    add("--further", type=int, default=3, help="of each further one (%(default)s)")
    add("--examples", type=int, help="training examples (all)")
    add("--replicates", type=int, default=3)
    add("--out", type=Path, default=Path("runs/phone_cifar10"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    splits = kl.data.load("cifar10")
    rows: list[dict[str, Any]] = []
    for seed in range(options.replicates):
        rows += replicate(splits, seed, options)
        pd.DataFrame(rows).to_csv(options.out / "phone_cifar10.csv", index=False)
        print(summary(pd.DataFrame(rows)), flush=True)


def replicate(splits: Any, seed: int, options: Any) -> list[dict[str, Any]]:
    """Trains, writes and measures the part of a replicate that is not stored yet."""
    x, y = (array[: options.examples] for array in splits.train)
    steps = len(x) // BATCH * options.further
    keras.utils.set_random_seed(seed)
    search = kl.LotteryTicketSearch(
        lambda: compiled(mobile_net(), len(x) // BATCH * options.epochs, 2e-3),
        schedule=[*SPARSITIES],
        allocation="uniform",
        rewind="learning_rate",
        rewind_to=f"{options.epochs - options.further}ep",
        controls=(),
        seed=seed,
        directory=options.out / f"search_{seed}",
        prunable="xnnpack",
        engine="fit",
        workers=0,
    )
    search.search(
        x,
        y,
        validation_data=splits.validation,
        batch_size=BATCH,
        epochs=options.epochs,
        verbose=0,
    )
    dense = search.ticket(0, 0).trained_model()
    made = {"dense": dense}
    for level, sparsity in enumerate(SPARSITIES, 1):
        made[f"search {sparsity:.0%}"] = search.ticket(level, 0).trained_model()

    def trained(name: str, start: Callable[[], keras.Model], *callbacks: Any) -> None:
        file = options.out / f"{name.replace(' ', '_')}_{seed}.keras"
        if not file.exists():
            keras.utils.set_random_seed(seed)
            model = compiled(start(), steps, 1e-3)
            how = {"batch_size": BATCH, "epochs": options.further, "verbose": 0}
            model.fit(x, y, callbacks=list(callbacks), **how)
            model.save(file)
        print(f"{name}, replicate {seed}", flush=True)
        made[name] = keras.saving.load_model(file)

    def again() -> keras.Model:
        model = kl.mask_model(mobile_net(), "xnnpack")
        set_state(model, get_state(dense))
        return model

    def smaller() -> keras.Model:
        model = kl.mask_model(kl.strip_masks(again()))
        kl.prune(model, 0.5, "l1", granularity="filter")
        return kl.compact(model)

    trained("longer", again)
    for sparsity in SPARSITIES:
        how = {"begin_step": 0, "end_step": 2 * steps // 3, "allocation": "uniform"}
        pruning = kl.GradualPruning(sparsity, frequency=50, **how)
        trained(f"gradual {sparsity:.0%}", again, pruning)
    trained("channels", smaller)
    return measured(made, splits, seed, options.out)


def mobile_net() -> keras.Model:
    """A net of a form that XNNPACK runs sparsely; 69,834 parameters."""
    inputs = x = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(32, 3, 2, use_bias=False, name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for number, (width, stride) in enumerate(BLOCKS, 1):
        padding = "same"
        if stride == 2:
            x, padding = layers.ZeroPadding2D(1)(x), "valid"
        name = f"depthwise_{number}"
        x = layers.DepthwiseConv2D(3, stride, padding, use_bias=False, name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(width, 1, use_bias=False, name=f"pointwise_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def compiled(model: keras.Model, steps: int, rate: float) -> keras.Model:
    """Adam, at a rate that falls to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    return model


def measured(
    made: dict[str, keras.Model], splits: Any, seed: int, out: Path
) -> list[dict[str, Any]]:
    """A row for each model and format: accuracy, bytes, emulated time."""
    rows, files = [], []
    for name, model in made.items():
        for form in ("float32", "int8"):
            file = out / f"{name.replace(' ', '_')}_{seed}_{form}.tflite"
            how = {"quantize": "int8", "representative_data": splits.x_train}
            with contextlib.redirect_stdout(io.StringIO()):
                report = kl.export.to_litert(
                    model, file, **(how if form == "int8" else {})
                )
            accuracy = 100 * accuracy_of(file, *splits.test)
            row = {"model": name, "form": form, "replicate": seed}
            counted = {"bytes": report.bytes, "gzip": report.gzip_bytes}
            rows.append({**row, "accuracy": accuracy, **counted})
            files.append(file)
    if (reason := arm.why_not()) is not None:
        print(f"no emulated times: {reason}")
        return rows
    for row, file, emulated in zip(rows, files, arm.emulate(files), strict=True):
        row["time"] = emulated.ratio
        here = arm.here(file)
        off = abs(emulated.output - here).max() / abs(here).max()
        row["differs"] = float(off)
    return rows


def summary(table: pd.DataFrame) -> str:
    """Medians, minima and maxima of the measurements over replicates."""
    dense = table[(table.model == "longer") & (table.form == "float32")]
    best = dense.set_index("replicate").accuracy
    table = table.assign(less=table.accuracy - table.replicate.map(best))
    size = table[(table.model == "dense") & (table.form == "float32")].bytes.iloc[0]
    grouped = table.assign(size=table.bytes / size).groupby(
        ["model", "form"], sort=False
    )
    columns = [c for c in ("accuracy", "less", "size", "time", "differs") if c in table]
    if "size" not in columns:
        columns.insert(2, "size")
    text = grouped[columns].median().round(3)
    text["from"] = grouped.less.min().round(2)
    text["to"] = grouped.less.max().round(2)
    return text.to_string()


if __name__ == "__main__":
    main()
