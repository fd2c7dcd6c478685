"""What pruning buys on the device: sizes, latencies and accuracies of files.

    TFDS_DATA_DIR=... python benchmarks/deploy.py [--epochs 10] [--replicates 3]
                      [--parts formats,blocks,units,wide] [--out runs/deploy]

- formats: LeNet-300-100, where the zeros lie times how weights are stored. No training.
- blocks: its tickets in blocks of 1x4 on MNIST, sparsely encoded.
- units: its tickets with whole units pruned, compacted, in eight bits.
- wide: a dense network 1024-4096-4096-1024, 90 % in blocks of 1x4. No training.

Each part prints a table, medians over replicates, as ratios to the dense float32 file
of the same replicate, and <out>/deploy.json has every file. Accuracies are those of the
files on the test data. All files of a part are timed in interleaved rounds, one thread.
Trains about 33 networks for so many epochs; 10 take some minutes on 2 cores.
"""

import argparse
import contextlib
import io
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import pandas as pd

import keras_lottery as kl
from keras_lottery.deploy.show import as_records
from keras_lottery.store import write_json

BATCH = 60
BLOCKS = [0.5, 0.75, 0.9, 0.945]
UNITS = [0.4, 0.6, 0.7, 0.75, 0.8]
WIDE = (1024, 4096, 4096, 1024)
EIGHT_BITS = ("dynamic", "int8")


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
    result = {}
    for name in options.parts.split(","):
        began = time.perf_counter()
        folder = options.out / name
        table = parts[name](options, folder)
        show(name, table)
        print(f"({time.perf_counter() - began:.0f} s)")
        result[name] = as_records(table)
    write_json(options.out / "deploy.json", result)


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
    rows = []
    for splits, level, replicate, ticket in tickets(
        options, folder, BLOCKS, "block_1x4"
    ):
        path = folder / f"level_{level}_{replicate}.tflite"
        write(ticket, path, splits)
        sparsity = 1 - ticket.masks.density
        name = f"{sparsity:.1%} in 1x4" if level else "dense"
        rows.append({"what": name, "replicate": replicate, "path": path})
    return measured(rows, options, splits.test)


def units(options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Tickets without their dead units, in eight bits."""
    rows = []
    for splits, level, replicate, ticket in tickets(options, folder, UNITS, "filter"):
        model = kl.compact(ticket.trained_model())
        widths = "-".join(
            str(layer.units)
            for layer in model.layers
            if isinstance(layer, keras.layers.Dense)
        )
        for quantize in EIGHT_BITS if level else (None, *EIGHT_BITS):
            path = folder / f"level_{level}_{replicate}_{quantize}.tflite"
            write(model, path, splits, quantize)
            name = f"{widths}, {quantize}" if quantize else "dense"
            rows.append({"what": name, "replicate": replicate, "path": path})
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
    options: argparse.Namespace, folder: Path, schedule: list[float], granularity: str
) -> Iterator[tuple[kl.data.Splits, int, int, kl.Ticket]]:
    """Searches, and yields the dense networks and the tickets of all replicates."""
    splits = kl.data.load(options.data)
    steps = options.epochs * (len(splits.x_train) // BATCH)

    def build() -> keras.Model:
        model = kl.models.lenet_300_100(splits.input_shape, splits.classes)
        rate = keras.optimizers.schedules.CosineDecay(1.2e-3, steps)
        recipe = kl.models.recipe("lenet_300_100")
        return kl.models.compile_model(model, recipe, learning_rate=rate)

    search = kl.LotteryTicketSearch(
        build,
        schedule,
        granularity=granularity,
        rewind="learning_rate",
        controls={},
        replicates=options.replicates,
        directory=folder / "search",
    )
    search.search(
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        batch_size=BATCH,
        steps=steps,
    )
    for level in range(len(schedule) + 1):
        for replicate in range(options.replicates):
            yield splits, level, replicate, search.ticket(level, replicate)


def write(
    ticket_or_model: kl.Ticket | keras.Model,
    path: Path,
    splits: kl.data.Splits | None = None,
    quantize: str | None = None,
) -> None:
    """A .tflite file, in silence."""
    with contextlib.redirect_stdout(io.StringIO()):
        kl.export.to_litert(
            ticket_or_model,
            path,
            quantize=quantize,
            representative_data=splits and splits.x_train[:500],
        )


def measured(
    rows: list[dict], options: argparse.Namespace, test: tuple | None
) -> pd.DataFrame:
    """The rows with what `benchmark` measured, and ratios to their dense file."""
    table = kl.deploy.benchmark(
        [row["path"] for row in rows], test, seconds=options.seconds
    )
    table["what"] = [row["what"] for row in rows]
    table["replicate"] = [row["replicate"] for row in rows]
    dense = table[table["what"].str.match(r"dense(, float32)?$")]
    dense = dense.set_index("replicate")
    for column, of in (("size", "bytes"), ("gzip", "gzip_bytes"), ("time", "p50_us")):
        table[column] = table[of] / table["replicate"].map(dense[of])
    return table


def show(name: str, table: pd.DataFrame) -> None:
    """Medians, as a table of Markdown."""
    print(f"\n{name}, medians of {table['replicate'].nunique()}\n")
    print("| | accuracy | bytes | of dense | gzip | p50 µs | of dense | spread |")
    print("|---|---|---|---|---|---|---|---|")
    for what, rows in table.groupby("what", sort=False):
        median = {c: statistics.median(rows[c]) for c in rows.select_dtypes("number")}
        shown = "-"
        if "accuracy" in rows:
            least, most = 100 * rows["accuracy"].min(), 100 * rows["accuracy"].max()
            shown = f"{100 * median['accuracy']:.2f} ({least:.2f} to {most:.2f}) %"
        print(
            f"| {what} | {shown} | {median['bytes']:,.0f} | {median['size']:.3f} "
            f"| {median['gzip']:.3f} | {median['p50_us']:.2f} | {median['time']:.3f} "
            f"| {median['spread']:.0%} |"
        )


if __name__ == "__main__":
    main()
