"""The same search on every backend, killed and resumed on each.

    python benchmarks/backends.py [--backends tensorflow jax torch] [--epochs 10]
                                  [--kills 3] [--seed 0] [--out DIR]

The search is for tickets of LeNet-300-100 on scikit-learn's digits, with three levels,
two controls and two replicates. NumPy draws the initial weights, including those of the
controls, so that they are the same on every backend. Three things are compared:

- masks: each backend prunes the dense networks that the first backend has trained. All
  must keep the same weights as the first one's search at level 1.
- accuracies: those of each backend's own search are compared with the first one's. For
  each level and variant, the mean must lie within the 95 % interval of the first one's
  mean. With two replicates this interval is wide, so the largest difference of a single
  training is printed, too.
- resuming: a second search, killed by `kill -9` at random moments, must end with the
  same results and the same weights, to the bit.
"""

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from scipy.stats import t

import keras_lottery as kl
from keras_lottery.tables import text_table

ROOT = Path(__file__).parents[1]
BACKENDS = ("tensorflow", "jax", "torch")
LEVELS, RATE, REPLICATES = 3, 0.5, 2
CONTROLS = ("reinit", "shuffle")
TRAININGS = REPLICATES * (1 + LEVELS * (1 + len(CONTROLS)))


@keras.saving.register_keras_serializable("benchmarks")
class DrawnByNumPy(keras.initializers.Initializer):
    """Glorot's normal distribution, the same on every backend."""

    def __call__(self, shape, dtype=None):
        drawn = np.random.normal(scale=math.sqrt(2 / sum(shape)), size=shape)
        return keras.ops.convert_to_tensor(drawn, dtype)


def search(directory: Path, epochs: int) -> None:
    """Runs one search in a process of its own."""
    digits = kl.data.load("digits")

    def drawn_by_numpy(layer):
        config = layer.get_config()
        if "kernel_initializer" in config:
            config["kernel_initializer"] = DrawnByNumPy()
        return type(layer).from_config(config)

    def build() -> keras.Model:
        model = kl.models.lenet_300_100(digits.input_shape)
        model = keras.models.clone_model(model, clone_function=drawn_by_numpy)
        model.compile(
            keras.optimizers.Adam(1.2e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    made = kl.LotteryTicketSearch(
        build,
        kl.schedules.geometric(RATE, LEVELS),
        controls=CONTROLS,
        replicates=REPLICATES,
        directory=directory,
        workers=0,
    )
    made.search(
        *digits.train,
        validation_data=digits.validation,
        test_data=digits.test,
        batch_size=60,
        epochs=epochs,
        verbose=0,
    )


def prune(directory: Path, out: Path) -> None:
    """Prunes the dense networks of a search, in a process of its own."""
    run = kl.Run.load(directory)
    for replicate in range(REPLICATES):
        model = run.ticket(0, replicate).trained_model()
        kl.prune(model, RATE)
        kept = {name.replace("/", " "): m for name, m in kl.get_masks(model).items()}
        np.savez(out / f"{replicate}.npz", **kept)


def start(backend: str, task: str, *arguments: object) -> subprocess.Popen:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    # As the command line sets it, before torch is imported.
    quiet["OMP_WAIT_POLICY"] = "PASSIVE"
    return subprocess.Popen(
        [sys.executable, __file__, "--task", task, *map(str, arguments)],
        env=os.environ | quiet | {"KERAS_BACKEND": backend},
        stdout=subprocess.DEVNULL,
    )


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        raise RuntimeError(f"failed: {process.args!r}")


def stored(directory: Path) -> int:
    return len(list(directory.glob("replicate_*/level_*/[!.]*.safetensors")))


def kill(backend: str, directory: Path, epochs: int, rng: random.Random) -> int:
    """Kills a search after some finished trainings; returns the number of these."""
    before = stored(directory)
    process = start(backend, "search", directory, epochs)
    while stored(directory) == before:
        if process.poll() is not None:
            raise RuntimeError(f"ended before it was killed: {process.args!r}")
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1))
    process.kill()
    process.wait()
    return stored(directory)


def same(one: Path, two: Path) -> bool:
    """Whether two searches have the same results, weights and masks."""
    runs = kl.Run.load(one), kl.Run.load(two)
    tables = [run.results().drop(columns="seconds") for run in runs]
    return tables[0].equals(tables[1]) and all(
        runs[0].masks(level, replicate) == runs[1].masks(level, replicate)
        and all(
            np.array_equal(weight, runs[1].trained(level, replicate)[name])
            for name, weight in runs[0].trained(level, replicate).items()
        )
        for level in range(LEVELS + 1)
        for replicate in range(REPLICATES)
    )


def apart(one: kl.Run, two: kl.Run) -> float:
    """The largest difference of a trained weight over all tickets."""
    return max(
        abs(weight - two.trained(level, replicate)[name]).max()
        for level in range(LEVELS + 1)
        for replicate in range(REPLICATES)
        for name, weight in one.trained(level, replicate).items()
        if weight.dtype.kind == "f"
    )


def compare(folder: Path, backends: list[str]) -> tuple[list[list[str]], bool]:
    """A row for each level and variant, and whether all accuracies agree."""
    column = "early_stop_test_accuracy"
    keys = ["level", "variant", "replicate", "trial"]
    runs = {b: kl.Run.load(folder / b) for b in backends}
    tables = {b: run.results().set_index(keys)[column] for b, run in runs.items()}
    first = tables[backends[0]]
    wide = t.ppf(0.975, REPLICATES - 1) / math.sqrt(REPLICATES)
    rows, within = [], True
    for (level, variant), own in first.groupby(["level", "variant"]):
        row = [str(level), variant]
        half = wide * own.std()
        for backend, table in tables.items():
            found = table.loc[level, variant]
            row.append(f"{100 * found.mean():.2f}")
            if backend == backends[0]:
                row[-1] += f" ± {100 * half:.2f}"
            within &= abs(found.mean() - own.mean()) <= half + 1e-9
        largest = max(
            abs(table - first).loc[level, variant].max() for table in tables.values()
        )
        rows.append([*row, f"{100 * largest:.2f}"])
    return rows, within


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keeps the searches")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task, directory, other = options.task
        if task == "search":
            search(Path(directory), int(other))
        else:
            prune(Path(directory), Path(other))
        return 0

    folder = options.out or Path(tempfile.mkdtemp())
    rng = random.Random(options.seed)
    first = options.backends[0]
    rows = []
    for backend in options.backends:
        began = time.perf_counter()
        finish(start(backend, "search", folder / backend, options.epochs))
        seconds = time.perf_counter() - began
        masks = folder / f"{backend}_masks"
        masks.mkdir(exist_ok=True)
        finish(start(backend, "prune", folder / first, masks))
        found, own = kl.Run.load(folder / first), kl.Run.load(folder / backend)
        equal, agree = True, []
        for replicate in range(REPLICATES):
            loaded = np.load(masks / f"{replicate}.npz")
            for name, mask in found.masks(1, replicate).items():
                equal &= np.array_equal(loaded[name.replace("/", " ")], mask)
                agree.append((own.masks(1, replicate)[name] == mask).ravel())
        broken = folder / f"{backend}_killed"
        at = [kill(backend, broken, options.epochs, rng) for _ in range(options.kills)]
        finish(start(backend, "search", broken, options.epochs))
        equal_after = same(folder / backend, broken)
        row = [
            backend,
            *(own.settings["engine"], f"{seconds:.0f} s", "yes" if equal else "NO"),
            f"{100 * np.concatenate(agree).mean():.3f} %",
            f"{apart(found, own):.0e}",
            f"{', '.join(map(str, at))} of {TRAININGS}",
            "yes" if equal_after else "NO",
        ]
        rows.append(row)
        print(*row, sep=" | ", flush=True)
    header = [
        "",
        *("engine", "unbroken", "masks from the first's weights equal"),
        *("own masks of level 1 agree", "own weights differ", "killed after", "equal"),
    ]
    accuracies, within = compare(folder, options.backends)
    print(f"\n{text_table(rows, header)}\n")
    names = ["level", "variant", *options.backends, "largest difference of one"]
    print(text_table(accuracies, names))
    print(f"\nall means within the interval of {first}: {'yes' if within else 'NO'}")
    print(f"searches: {folder}")
    return 0 if within and all("NO" not in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
