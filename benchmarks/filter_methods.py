"""Compares every way to prune filters in the library, at equal multiply-adds.

    TFDS_DATA_DIR=... python benchmarks/filter_methods.py [--methods l1 fpgm random]
        [--model small_resnet] [--data cifar10] [--averaged 2]
        [--left 0.7 0.5 0.3] [--replicates 3]

A network is trained. Each method then removes filters until a share `--left` of the
multiply-adds remains; the network is compacted, fine-tuned for `--tune` epochs, and
evaluated on the test data. All layers lose the same share, except with `auto_compress`.
The learning rate of every training falls to zero along a cosine.
`scratch_e` and `scratch_b` train a new network of the shape that `l1` leaves, for as
many epochs as the dense one, or for as many as cost the same. `--out` keeps a row for
each run, and the command continues where it stopped; `methods.png` is drawn there at
the end. The latency is that of a `.tflite` file with one thread, measured once for
networks of equal shape.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import keras_lottery as kl
from keras_lottery.automatic.pruner import Pruner
from keras_lottery.quiet import quiet
from keras_lottery.structured import multiply_adds, scratch
from keras_lottery.study.plots import COLORS, MARKERS, write_figure

CRITERIA = (
    *("random", "l1", "l2", "fpgm", "hrank", "entropy", "activation", "bn_scale"),
    *("taylor", "lasso", "greedy_imitation"),
)
REPAIRED = {"lasso": "least_squares"}
SMALL: dict[str, Callable[..., keras.Model]] = {
    "small_resnet": partial(kl.models.resnet, 8, width=8),
    "small_vgg": partial(kl.models.vgg, (1, 1, 1), 16),
}
"""Networks for two cores: a ResNet-8 with 8, 16 and 32 filters, and a VGG."""
METHODS = (*CRITERIA, "choose_criteria", "auto_compress", "scratch_e", "scratch_b")
BATCH = 128
RATE = 0.01
NETWORKS: dict[Any, keras.Model] = {}
"""A compiled network for each schedule and shape, since compiling is slow."""
FILES: dict[Any, dict[str, Any]] = {}
"""The measurements of a file for each shape."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--methods", nargs="+", default=["all"], help="%(default)s")
    add("--model", default="small_resnet", choices=[*SMALL, *kl.models.names()])
    add("--data", default="cifar10")
    add("--averaged", type=int, default=2, help="average pixels of so many by so many")
    add("--left", nargs="+", type=float, default=[0.7, 0.5, 0.3])
    add("--epochs", type=int, default=20, help="of the dense training (%(default)s)")
    add("--tune", type=int, default=5, help="epochs of fine-tuning (%(default)s)")
    add("--calibrate", type=int, default=512, help="examples that criteria see")
    add("--replicates", type=int, default=3)
    add("--out", type=Path, default=Path("runs/filter_methods"))
    options = parser.parse_args()
    methods = METHODS if options.methods == ["all"] else options.methods
    options.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.out / "runs.csv")
    splits = kl.data.load(options.data)
    if options.averaged > 1:
        splits = splits.averaged(options.averaged)
    of_run = {
        "data": splits.name,
        "model": options.model,
        "epochs": options.epochs,
        "tune": options.tune,
    }
    for seed in range(options.replicates):
        key = {**of_run, "replicate": seed}
        dense = trained(splits, seed, options)
        rows.add(
            {**key, "method": "dense", "left": 1.0},
            lambda dense=dense: row(dense, splits),
        )
        for left in options.left:
            for method in methods:
                how = method, left, dense, splits, seed, options
                rows.add(
                    {**key, "method": method, "left": left},
                    lambda how=how: row(pruned(*how), splits),
                )
    report(rows.matching(of_run), options.out)


def report(table: pd.DataFrame, folder: Path) -> None:
    """Prints means and deviations over replicates, and draws accuracies."""
    columns = ["accuracy", "parameters", "multiply_adds", "p50_us", "seconds"]
    by = table.groupby(["left", "method"], sort=False)[columns]
    print(by.agg(["mean", "std"]).round(4).to_string())
    write_figure(picture(table), folder / "methods.png")


def picture(table: pd.DataFrame) -> Figure:
    """Draws a row for each method, the best at the top, and a mark for each share."""
    dense = table["method"] == "dense"
    accuracy = 100 * table[~dense].set_index(["left", "method"])["accuracy"]
    smallest = accuracy[accuracy.index.levels[0].min()]
    methods = list(smallest.groupby("method").mean().sort_values().index)
    figure = Figure(figsize=(7, 1 + 0.25 * len(methods)), layout="constrained")
    axes = figure.subplots()
    for left, color, marker in zip(
        sorted(accuracy.index.levels[0], reverse=True), COLORS, MARKERS, strict=False
    ):
        values = accuracy[left].groupby("method")
        mean, least, most = (values.agg(f)[methods] for f in ("mean", "min", "max"))
        bars = [(mean - least).clip(lower=0), (most - mean).clip(lower=0)]
        look = {"fmt": marker, "color": color, "markersize": 4, "capsize": 2}
        label = f"{left:.0%} of the multiply-adds"
        axes.errorbar(mean, methods, xerr=bars, elinewidth=0.8, label=label, **look)
    axes.axvline(100 * table["accuracy"][dense].mean(), color="0.5", label="dense")
    axes.set_xlabel("test accuracy (%)")
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside upper center", ncols=4, fontsize="x-small", frameon=False
    )
    return figure


class Rows:
    """A file of runs, each of which is done only once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = pd.read_csv(path) if path.exists() else pd.DataFrame()

    def add(self, key: dict[str, Any], run: Any) -> None:
        """Does a run, unless there is a row with its key."""
        if len(self.table) and len(self.matching(key)):
            return
        began = time.perf_counter()
        made = {**key, **run(), "seconds": time.perf_counter() - began}
        self.table = pd.concat([self.table, pd.DataFrame([made])], ignore_index=True)
        self.table.to_csv(self.path, index=False)
        print(made, flush=True)

    def matching(self, key: dict[str, Any]) -> pd.DataFrame:
        """The rows whose columns have these values."""
        return self.table[(self.table[list(key)] == pd.Series(key)).all(axis=1)]


def trained(splits: kl.data.Splits, seed: int, options: argparse.Namespace) -> Any:
    """The dense network of a seed, trained once."""
    keras.utils.set_random_seed(seed)
    build = SMALL.get(options.model) or kl.models.get(options.model)
    model = build(input_shape=splits.input_shape, classes=splits.classes, seed=seed)
    compiled(model, splits, options.epochs)
    name = f"{splits.name}_{options.model}_{options.epochs}_epochs_{seed}"
    file = options.out / f"{name}.weights.h5"
    if file.exists():
        model.load_weights(file)
    else:
        model.fit(*splits.train, batch_size=BATCH, epochs=options.epochs, verbose=0)
        model.save_weights(file)
    return model


def compiled(
    model: keras.Model, splits: kl.data.Splits, epochs: int, rate: float = RATE
) -> None:
    """Compiles a network for a number of epochs."""
    steps = max(1, epochs * -(-len(splits.train[0]) // BATCH))
    falling = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(falling), loss, metrics=["accuracy"])


def pruned(
    method: str,
    left: float,
    dense: keras.Model,
    splits: kl.data.Splits,
    seed: int,
    options: argparse.Namespace,
) -> keras.Model:
    """The network that a method leaves, fine-tuned or trained from scratch."""
    some = tuple(array[: options.calibrate] for array in splits.train)
    judged = tuple(array[:1000] for array in splits.validation)
    if method == "auto_compress":
        found = kl.automatic.auto_compress(
            dense, left, splits.train, judged, epochs=0, seed=seed, verbose=0
        )
        return tuned(found.model, splits, options.tune)
    masked = kl.mask_model(dense)
    pruner = Pruner(masked, judged)
    budget = left * pruner.cost(pruner.sizes).multiply_adds
    counts = pruner.within(np.zeros(len(pruner.sizes)), budget, "multiply_adds")
    criterion: Any = method if method in CRITERIA else "l1"
    if method == "choose_criteria":
        criterion = kl.automatic.choose_criteria(dense, left, some, judged, seed=seed)
    initial = kl.get_state(masked)
    kl.prune(
        masked,
        pruner.rates(counts),
        criterion,
        granularity="filter",
        data=some,
        seed=seed,
        repair=REPAIRED.get(method),
    )
    if method.startswith("scratch"):
        start = scratch(masked, initial, options.epochs, seed)[method]
        return tuned(start.model, splits, start.epochs, RATE)
    return tuned(kl.compact(masked), splits, options.tune)


def tuned(
    model: keras.Model, splits: kl.data.Splits, epochs: int, rate: float = RATE / 10
) -> keras.Model:
    """The compiled network of this shape, trained from these weights."""
    network = NETWORKS.setdefault((epochs, rate, shape(model)), model)
    if network is model:
        compiled(model, splits, epochs, rate)
    network.set_weights(model.get_weights())
    for variable in network.optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))  # As they are before training.
    if epochs:
        network.fit(*splits.train, batch_size=BATCH, epochs=epochs, verbose=0)
    return network


def shape(model: keras.Model) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(variable.shape) for variable in model.weights)


def row(model: keras.Model, splits: kl.data.Splits) -> dict[str, Any]:
    """The measurements of a network."""
    metrics = model.evaluate(*splits.test, verbose=0, return_dict=True)
    if shape(model) not in FILES:
        FILES[shape(model)] = file_of(model)
    return {
        "accuracy": metrics["accuracy"],
        "parameters": model.count_params(),
        "multiply_adds": multiply_adds(model),
        **FILES[shape(model)],
    }


def file_of(model: keras.Model) -> dict[str, Any]:
    """The size and the latency of a network's `.tflite` file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.tflite")
        with quiet():
            kl.export.to_litert(model, file, sparse=False)
        table = kl.benchmark(file)
    return {"p50_us": table["p50_us"][0], "bytes": table["bytes"][0]}


if __name__ == "__main__":
    main()
