"""Bytes, latency and accuracy with half of the filters and units removed.

    TFDS_DATA_DIR=... python benchmarks/structured.py [--epochs 4] [--replicates 3]
                      [--search runs/mnist_lenet_300_100]

A small convolutional net with a pooled head is trained on MNIST; half of its filters
and units are pruned and removed, and the remaining net is trained in four ways:
fine-tuned for half as many epochs, from its own initial weights, and from new ones for
as many epochs (scratch-E) or with as much computation (scratch-B; Liu et al. 2019,
https://arxiv.org/abs/1810.05270). Bytes, latency and accuracy are those of .tflite
files, measured by `deploy.benchmark`. `--search` adds the parameters of a stored
search's tickets before and after `compact`, by level.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import pandas as pd

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_state
from keras_lottery.structured import multiply_adds, scratch

RATE, BATCH = 2e-3, 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=4, help="of the dense training (%(default)s)")
    add("--examples", type=int, help="training examples (all)")
    add("--sparsity", type=float, default=0.5, help="of filters (%(default)s)")
    add("--criterion", default="l1", help="of filters (%(default)s)")
    add("--replicates", type=int, default=3)
    add("--search", type=Path, help="a stored search, to compact its tickets")
    add("--out", type=Path, default=Path("runs/structured"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    splits = kl.data.load("mnist")
    rows: list[dict[str, Any]] = []
    for seed in range(options.replicates):
        rows += replicate(splits, seed, options)
        table = pd.DataFrame(rows)
        table.to_csv(options.out / "structured.csv", index=False)
    mean = table.groupby("model", sort=False).mean(numeric_only=True)
    print(f"Means of {options.replicates} replicates; files of LiteRT, one thread")
    print(mean.drop(columns="replicate").round(4).to_string())
    if options.search:
        print(by_level(options.search).to_string(index=False))


def replicate(
    splits: kl.data.Splits, seed: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows of one seed."""
    model = kl.mask_model(net(seed))
    initial = get_state(model)
    seconds = {"dense": fit(model, options.epochs, splits, options.examples, seed)}
    models = {"dense": kl.strip_masks(model)}
    how = options.sparsity, options.criterion
    kl.prune(model, *how, granularity="filter", data=splits.train)
    small, report = kl.compact(model, return_report=True)
    print(report)
    models["pruned"], seconds["pruned"] = small, 0.0
    tuned = kl.compact(model)
    half = max(1, options.epochs // 2)
    seconds["fine-tuned"] = fit(tuned, half, splits, options.examples, seed)
    models["fine-tuned"] = tuned
    for name, start in scratch(model, initial, options.epochs, seed).items():
        seconds[name] = fit(start.model, start.epochs, splits, options.examples, seed)
        models[name] = start.model
    files = [options.out / f"{name}_{seed}.tflite" for name in models]
    for each, file in zip(models.values(), files, strict=True):
        kl.export.to_litert(each, file)
    measured = kl.benchmark(files, splits.test).assign(model=list(models))
    measured = measured.set_index("model")
    dense = measured.loc["dense"]
    return [
        {
            "model": name,
            "replicate": seed,
            "parameters": models[name].count_params(),
            "multiply-adds": multiply_adds(models[name]),
            "bytes": row["bytes"],
            "bytes/dense": row["bytes"] / dense["bytes"],
            "p50, us": row["p50_us"],
            "p50/dense": row["p50_us"] / dense["p50_us"],
            "spread": row["spread"],
            "accuracy, %": 100 * row["accuracy"],
            "trained, s": seconds[name],
        }
        for name, row in measured.iterrows()
    ]


def net(seed: int) -> keras.Model:
    """Three convolutions and a pooled head."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", name="conv_1"),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(64, 3, activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool_2"),
            layers.Conv2D(64, 3, activation="relu", name="conv_3"),
            layers.GlobalAveragePooling2D(name="pool_3"),
            layers.Dense(64, "relu", name="hidden"),
            layers.Dense(10, name="output"),
        ]
    )


def fit(
    model: keras.Model,
    epochs: int,
    splits: kl.data.Splits,
    examples: int | None,
    seed: int,
) -> float:
    """Trains with a learning rate that falls to zero; returns the seconds."""
    keras.utils.set_random_seed(seed)
    x, y = (array[:examples] for array in splits.train)
    steps = epochs * -(-len(x) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        steps_per_execution=10,
    )
    began = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return time.perf_counter() - began


def by_level(directory: Path) -> pd.DataFrame:
    """The parameters of a search's tickets before and after `compact`."""
    search = kl.LotteryTicketSearch.load(directory)
    rows = []
    for level in (0, *search.report_levels):
        ticket = search.ticket(level)
        _, report = kl.compact(ticket.initial_model(), return_report=True)
        before, after = report.parameters_before, report.parameters_after
        widths = [f"{b}->{a}" for b, a in report.widths.values() if a != b]
        rows.append(
            {
                "level": level,
                "weights left, %": round(100 * ticket.masks.density, 2),
                "parameters": before,
                "compact": after,
                "share": round(after / before, 4),
                "units": " ".join(widths),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
