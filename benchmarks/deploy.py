"""What pruning gains on the device: sizes, latencies and accuracies of files.

    TFDS_DATA_DIR=... python benchmarks/deploy.py [--epochs 10] [--replicates 3]
                      [--parts formats,blocks,units,wide] [--out runs/deploy]

- formats: LeNet-300-100 with every pattern of zeros, stored in every format, without
  training.
- blocks: its tickets in blocks of 1x4 on MNIST, sparsely encoded.
- units: its tickets with whole units pruned, compacted, in eight bits.
  Both are searched for twice: trained on the labels, and ("taught") on the outputs of
  the dense networks of all replicates for the training images, as in small_files.py.
- wide: a dense network 1024-4096-4096-1024 with 90 % pruned in blocks of 1x4, without
  training.

Each part prints a table of ratios to the dense float32 file of the same replicate, as
medians over replicates, and the operators that ran. <out>/deploy.json has every file,
including those of earlier calls for other parts. Accuracies are those of the files on
the test data. Tickets continue to train from level to level, so there are two
baselines: the dense network, trained on the labels, and the taught one, trained further
for as long as the last level's ticket. Differences of accuracy are taken within a
replicate; their median, minimum and maximum are shown. All files of a part are timed in
interleaved rounds with one thread.
"""

import argparse
import contextlib
import io
import os
import re
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd
from small_files import imitation, soft_targets

import keras_lottery as kl
from keras_lottery.engines.data import Data
from keras_lottery.files import read_json, write_json
from keras_lottery.keras_bridge.layers import get_masks, get_state, set_state
from keras_lottery.ship.deploy.show import as_records

BATCH = 60
BLOCKS = [0.5, 0.75, 0.85, 0.9, 0.925, 0.945]
UNITS = [0.4, 0.6, 0.64, 0.7, 0.75, 0.8]
WIDE = (1024, 4096, 4096, 1024)
EIGHT_BITS = ("dynamic", "int8")
LONG = "dense, taught as long"
BASELINES = {"difference": r"dense(, float32)?", "difference_long": re.escape(LONG)}
"""Columns of differences of accuracy, and the baseline row of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing a file")
    parser.add_argument("--parts", default="formats,blocks,units,wide")
    parser.add_argument("--widths", default=",".join(map(str, WIDE)))
    parser.add_argument("--out", type=Path, default=Path("runs/deploy"))
    options = parser.parse_args()
    parts = {"formats": formats, "blocks": blocks, "units": units, "wide": wide}
    names = options.parts.split(",")
    if unknown := set(names) - set(parts):
        parser.error(f"expected parts among {list(parts)}, received {sorted(unknown)}")
    file = options.out / "deploy.json"
    for name in names:
        began = time.perf_counter()
        table = parts[name](options, options.out / name)
        show(name, table)
        print(f"({time.perf_counter() - began:.0f} s)")
        before = read_json(file) if file.exists() else {}
        write_json(file, before | {name: as_records(table)})


def formats(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Patterns of zeros, in every way to store weights."""
    splits = kl.data.load(options.data)
    patterns = {
        "dense": None,
        "90 % scattered": {"sparsity": 0.9},
        "98 % scattered": {"sparsity": 0.98, "allocation": "uniform"},
        "90 % in 1x4": {"sparsity": 0.9, "granularity": "block_1x4"},
        "95 % in 1x4": {"sparsity": 0.95, "granularity": "block_1x4"},
    }
    rows = []
    for pattern, prune in patterns.items():
        model = kl.mask_model(kl.models.lenet_300_100(splits.input_shape, seed=0))
        if prune:
            kl.prune(model, **prune)
        for quantize in (None, "float16", *EIGHT_BITS):
            path = folder / f"{pattern}_{quantize}.tflite".replace(" ", "_")
            write(model, path, splits, quantize)
            name = f"{pattern}, {quantize or 'float32'}"
            rows.append({"what": name, "replicate": 0, "path": path})
    return measured(rows, options, None)


def blocks(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Tickets in blocks of four inputs."""
    splits = kl.data.load(options.data)
    rows = []
    for ticket, name, stem, replicate in tickets(
        splits, options, folder, BLOCKS, "block_1x4"
    ):
        path = folder / f"{stem}.tflite"
        write(ticket, path, splits)
        rows.append({"what": name, "replicate": replicate, "path": path})
    return measured(rows, options, splits.test)


def units(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Tickets without their dead units, in eight bits."""
    splits = kl.data.load(options.data)
    rows = []
    for ticket, name, stem, replicate in tickets(
        splits, options, folder, UNITS, "filter"
    ):
        float32 = [None] if name in ("dense", LONG) else []
        for quantize in (*float32, *EIGHT_BITS):
            path = folder / f"{stem}_{quantize}.tflite"
            write(ticket, path, splits, quantize)
            what = f"{name}, {quantize}" if quantize else name
            rows.append({"what": what, "replicate": replicate, "path": path})
    return measured(rows, options, splits.test)


def wide(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """A wide network, whose latency is that of its products."""
    first, *others = map(int, options.widths.split(","))
    keras.utils.set_random_seed(0)
    inputs = outputs = keras.Input((first,))
    for width in others:
        outputs = keras.layers.Dense(width, "relu")(outputs)
    model = kl.mask_model(keras.Model(inputs, outputs))
    rows = [{"what": "dense", "replicate": 0, "path": folder / "dense.tflite"}]
    write(model, rows[0]["path"])
    kl.prune(model, 0.9, granularity="block_1x4")
    rows.append({"what": "90 % in 1x4", "replicate": 0, "path": folder / "b.tflite"})
    write(model, rows[1]["path"])
    return measured(rows, options, None)


def tickets(
    splits: kl.data.Splits,
    options: argparse.Namespace,
    folder: Path,
    schedule: list[float],
    granularity: str,
) -> Iterator[tuple[kl.Ticket | keras.Model, str, str, int]]:
    """Searches, and yields (ticket or model, name, name of its file, replicate)."""
    of_labels = searched(splits, options, folder, schedule, granularity)
    teachers = [
        of_labels.ticket(0, replicate).trained_model()
        for replicate in range(options.replicates)
    ]
    targets = soft_targets(teachers, splits.x_train)
    taught = searched(splits, options, folder, schedule, granularity, targets)
    for search, suffix in ((of_labels, ""), (taught, ", taught")):
        for level in range(len(schedule) + 1):
            for replicate in range(options.replicates):
                ticket = search.ticket(level, replicate)
                name = "dense"
                if level:
                    name = f"{1 - ticket.masks.density:.1%} in 1x4"
                if level and granularity == "filter":
                    ticket = kl.compact(ticket.trained_model())
                    name = widths(ticket)
                stem = f"{name}{suffix}_{replicate}".replace(" ", "_")
                yield ticket, name + suffix, stem, replicate
    for replicate in range(options.replicates):
        model = trained_on(
            taught.ticket(0, replicate), len(schedule), targets, splits, options
        )
        yield model, LONG, f"long_{replicate}", replicate


def widths(model: keras.Model) -> str:
    dense = [each for each in model.layers if isinstance(each, keras.layers.Dense)]
    return "-".join(str(layer.units) for layer in dense)


def searched(
    splits: kl.data.Splits,
    options: argparse.Namespace,
    folder: Path,
    schedule: list[float],
    granularity: str,
    targets: np.ndarray | None = None,
) -> kl.LotteryTicketSearch:
    """A search by the labels, or by soft targets."""
    steps = steps_of(splits, options)
    shape, classes = splits.input_shape, splits.classes
    taught = targets is not None

    def build() -> keras.Model:
        # The function is sent to other processes, so it must not hold the data.
        return compiled(kl.models.lenet_300_100(shape, classes), steps, taught)

    train, validation, test = data_of(splits, targets)
    search = kl.LotteryTicketSearch(
        build,
        schedule,
        granularity=granularity,
        rewind="learning_rate",
        controls={},
        replicates=options.replicates,
        directory=folder / ("taught" if taught else "search"),
    )
    search.search(
        *train,
        validation_data=validation,
        test_data=test,
        batch_size=BATCH,
        steps=steps,
    )
    return search


def data_of(splits: kl.data.Splits, targets: np.ndarray | None) -> tuple:
    """Training, validation and test data, with labels or with soft targets."""
    if targets is None:
        return splits.train, splits.validation, splits.test
    one_hot = partial(keras.utils.to_categorical, num_classes=splits.classes)
    others = ((x, one_hot(y)) for x, y in (splits.validation, splits.test))
    return (splits.x_train, targets), *others


def trained_on(
    dense: kl.Ticket,
    rounds: int,
    targets: np.ndarray,
    splits: kl.data.Splits,
    options: argparse.Namespace,
) -> keras.Model:
    """The dense network, taught for as many levels as the tickets; it is stored."""
    replicate = dense.card["replicate"]
    path = options.out / f"dense_{rounds}_{replicate}.keras"
    if not path.exists():
        length = rounds * steps_of(splits, options)
        model = compiled(dense.trained_model(), length // rounds, taught=True)
        data = Data(*data_of(splits, targets), BATCH)
        engine = kl.engines.make("auto", model, data, length)
        ticket = kl.Ticket(get_masks(model), get_state(model), 0, length)
        set_state(model, engine.train(ticket, replicate).final)
        kl.strip_masks(model).save(path)
    return keras.models.load_model(path, compile=False)


def steps_of(splits: kl.data.Splits, options: argparse.Namespace) -> int:
    """Of a training."""
    return options.epochs * (len(splits.x_train) // BATCH)


def compiled(model: keras.Model, steps: int, taught: bool) -> keras.Model:
    """The model with a learning rate that falls to zero, again and again."""
    rate = keras.optimizers.schedules.CosineDecayRestarts(1.2e-3, steps, t_mul=1.0)
    of_labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(rate),
        imitation if taught else of_labels,
        # Keras could not choose the kind of accuracy by the loss's name.
        metrics=["categorical_accuracy" if taught else "accuracy"],
        jit_compile=True,
        steps_per_execution=50,
    )
    return model


def write(
    ticket_or_model: kl.Ticket | keras.Model,
    path: Path,
    splits: kl.data.Splits | None = None,
    quantize: str | None = None,
) -> None:
    """Writes a .tflite file without printing anything."""
    with contextlib.redirect_stdout(io.StringIO()):
        kl.export.to_litert(
            ticket_or_model,
            path,
            quantize=quantize,
            representative_data=splits and splits.x_train,
        )


def measured(
    rows: list[dict], options: argparse.Namespace, test: tuple | None
) -> pd.DataFrame:
    """The rows with the measurements of `benchmark`, relative to their dense files."""
    table = kl.benchmark([row["path"] for row in rows], test, seconds=options.seconds)
    table["what"] = [row["what"] for row in rows]
    table["replicate"] = [row["replicate"] for row in rows]
    baselines = {
        column: table[table["what"].str.fullmatch(name)].set_index("replicate")
        for column, name in BASELINES.items()
    }
    dense = baselines["difference"]
    for column, of in (("size", "bytes"), ("gzip", "gzip_bytes"), ("time", "p50_us")):
        table[column] = table[of] / table["replicate"].map(dense[of])
    if test is not None:
        for column, rows_of in baselines.items():
            own = table["replicate"].map(rows_of["accuracy"])
            table[column] = table["accuracy"] - own
    return table


def show(name: str, table: pd.DataFrame) -> None:
    """Medians, as a table of Markdown, and the operators that ran."""
    print(f"\n{name}, medians of {table['replicate'].nunique()}\n")
    print(
        f"| | accuracy, % | less dense | less {LONG} | bytes | of dense | gzip "
        "| p50 µs | of dense | spread |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for what, rows in table.groupby("what", sort=False):
        median = {c: statistics.median(rows[c]) for c in rows.select_dtypes("number")}
        shown = " | ".join(
            [in_per_cent(rows, "accuracy"), *(in_per_cent(rows, c) for c in BASELINES)]
        )
        print(
            f"| {what} | {shown} | {median['bytes']:,.0f} | {median['size']:.3f} "
            f"| {median['gzip']:.3f} | {median['p50_us']:.2f} | {median['time']:.3f} "
            f"| {median['spread']:.0%} |"
        )
    print()
    for operators, rows in table.groupby("operators", sort=False):
        print(f"- {'; '.join(rows['what'].unique())}: {operators}")


def in_per_cent(rows: pd.DataFrame, column: str) -> str:
    """The median, minimum and maximum of a column."""
    if column not in rows:
        return "-"
    values = 100 * rows[column]
    if column == "accuracy":
        return f"{values.median():.2f} ({values.min():.2f} to {values.max():.2f})"
    return f"{values.median():+.2f} ({values.min():+.2f} to {values.max():+.2f})"


if __name__ == "__main__":
    main()
