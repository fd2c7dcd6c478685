"""How accurate is a trained network that is pruned at once, without any training?

    TFDS_DATA_DIR=... python benchmarks/one_shot.py [--models lenet resnet convnet]
        [--out DIR]

LeNet-300-100 on MNIST and a small ResNet on CIFAR-10 (images halved to 16 x 16) are
trained, and each is pruned to every sparsity by every method, with calibration on
training inputs without targets; the ResNet also with recalibrated statistics of its
BatchNormalization. A plain network of four convolutions loses 30 % of its filters, and
with them half of its multiplications. Prints the mean test accuracies in % over the
replicates and their standard deviations, and for each method the median CPU seconds of
one pruning and the most memory that it added. Replicates that are stored in `--out` are
not repeated.
"""

import argparse
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import psutil
from keras import layers

import keras_lottery as kl
from keras_lottery.files import write_json
from keras_lottery.tables import text_table

BATCH = 100
BatchNorm = layers.BatchNormalization
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"criterion": "magnitude", "allocation": "uniform"},
    "magnitude, global": {"criterion": "magnitude"},
    "wanda": {"criterion": "wanda"},
    "wanda, owl": {"criterion": "wanda", "allocation": "owl"},
    "ria": {"criterion": "ria"},
    "magnitude + least squares": {
        "criterion": "magnitude",
        "allocation": "uniform",
        "repair": "least_squares",
    },
    "wanda + least squares": {"criterion": "wanda", "repair": "least_squares"},
    "sparsegpt": {"criterion": "sparsegpt"},
    "admm": {"criterion": "admm"},
}


@kl.filter_criteria.of_filters
def first(filters: Any) -> np.ndarray:
    """Keeps the first filters of each layer."""
    return -np.arange(len(filters.alive))


GREEDY = kl.filter_criteria.GreedyForward("loss", candidates=10)
OF_FILTERS: dict[str, dict[str, Any]] = {
    method: {"granularity": "filter", **how}
    for method, how in {
        "l1": {"criterion": "l1"},
        "lasso": {"criterion": "lasso"},
        "lasso + least squares": {"criterion": "lasso", "repair": "least_squares"},
        "l1 + least squares": {"criterion": "l1", "repair": "least_squares"},
        "first + least squares": {"criterion": first, "repair": "least_squares"},
        "random + least squares": {"criterion": "random", "repair": "least_squares"},
        "greedy_imitation": {"criterion": "greedy_imitation"},
        "greedy_imitation + least squares": {
            "criterion": "greedy_imitation",
            "repair": "least_squares",
        },
        "greedy_forward, 10 candidates": {
            "criterion": kl.filter_criteria.of_filters(GREEDY.score),
            "repair": GREEDY,
        },
    }.items()
}


def lenet(splits: kl.data.Splits) -> keras.Model:
    return kl.models.lenet_300_100(input_shape=splits.input_shape)


def resnet(splits: kl.data.Splits) -> keras.Model:
    """Three stages of one block each, 16, 32 and 64 wide."""
    inputs = keras.Input(splits.input_shape)
    y = _normalised(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    for width in (16, 32, 64):
        stride = 1 if width == 16 else 2
        z = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(y)
        z = layers.Conv2D(width, 3, padding="same", use_bias=False)(_normalised(z))
        if stride > 1:
            y = layers.Conv2D(width, 1, stride, use_bias=False)(y)
        y = layers.ReLU()(layers.Add()([y, layers.BatchNormalization()(z)]))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, layers.Dense(splits.classes)(y))


def convnet(splits: kl.data.Splits) -> keras.Model:
    """Four convolutions, of 32, 32, 64 and 64 filters."""
    inputs = keras.Input(splits.input_shape)
    y = _normalised(layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs))
    y = _normalised(layers.Conv2D(32, 3, padding="same", use_bias=False)(y))
    y = layers.MaxPooling2D()(y)
    y = _normalised(layers.Conv2D(64, 3, padding="same", use_bias=False)(y))
    y = _normalised(layers.Conv2D(64, 3, padding="same", use_bias=False)(y))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, layers.Dense(splits.classes)(y))


def _normalised(y: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(y))


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, the data it is trained on, and how it is pruned."""

    build: Callable[..., keras.Model]
    data: str
    methods: dict[str, dict[str, Any]]
    sparsities: tuple[float, ...]


SPARSITIES = 0.5, 0.6, 0.7, 0.8, 0.9
TASKS = {
    "lenet": Task(lenet, "mnist", METHODS, SPARSITIES),
    "resnet": Task(resnet, "cifar10", METHODS, SPARSITIES),
    "convnet": Task(convnet, "cifar10", OF_FILTERS, (0.3,)),
}


def loaded(name: str, images: int) -> kl.data.Splits:
    """The data; for CIFAR-10, each 2 x 2 pixels are replaced by their mean."""
    splits = kl.data.load(name)
    some = {"x_train": splits.x_train[:images], "y_train": splits.y_train[:images]}
    splits = dataclasses.replace(splits, **some)
    if name != "cifar10":
        return splits
    halves = {}
    for part in ("x_train", "x_validation", "x_test"):
        x = getattr(splits, part)
        blocks = x.reshape(len(x), 16, 2, 16, 2, 3)
        halves[part] = blocks.mean(axis=(2, 4), dtype="float32")
    return dataclasses.replace(splits, **halves, input_shape=(16, 16, 3))


def trained(
    build: Callable[..., keras.Model], splits: kl.data.Splits, epochs: int, seed: int
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = build(splits)
    steps = epochs * -(-len(splits.x_train) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        steps_per_execution=10,
    )
    model.fit(*splits.train, BATCH, epochs, verbose=0)
    return model


class Memory(threading.Thread):
    """The peak memory inside the block, above that at its start, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process, self._ended = psutil.Process(), threading.Event()
        self._before = self._process.memory_info().rss
        self.most = 0.0

    def run(self) -> None:
        while not self._ended.wait(0.01):
            more = self._process.memory_info().rss - self._before
            self.most = max(self.most, more / 1e6)

    def __enter__(self) -> "Memory":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self.join()


def measured(
    model: keras.Model, task: Task, splits: kl.data.Splits, calibration: int
) -> Iterator[dict[str, Any]]:
    """The accuracy of the dense network, and after each method at each sparsity."""

    def accuracy(model: keras.Model) -> float:
        return model.evaluate(*splits.test, batch_size=500, verbose=0)[1]

    yield {"method": "dense", "sparsity": 0.0, "accuracy": accuracy(model)}
    x, y = (array[:calibration] for array in splits.train)
    normalised = any(isinstance(one, BatchNorm) for one in model.layers)
    for sparsity in task.sparsities:
        for method, how in task.methods.items():
            masked = kl.mask_model(model)
            with Memory() as memory:
                began = time.process_time()
                kl.prune(masked, sparsity, data=(x, y), **how)
                seconds = time.process_time() - began
            yield {
                "method": method,
                "sparsity": sparsity,
                "accuracy": accuracy(masked),
                "cpu_s": seconds,
                "more_mb": memory.most,
            }
            if normalised:
                kl.recalibrate(masked, x)
                both = f"{method}, recalibrated"
                yield {
                    "method": both,
                    "sparsity": sparsity,
                    "accuracy": accuracy(masked),
                }


def table(rows: list[dict[str, Any]], sparsities: tuple[float, ...]) -> str:
    """Accuracies in %, seconds and memory of one pruning, by method and sparsity."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = []
        for sparsity in (0.0, *sparsities):
            some = [100 * r["accuracy"] for r in own if r["sparsity"] == sparsity]
            spread = f" ± {np.std(some, ddof=1):.1f}" if len(some) > 1 else ""
            cells.append(f"{np.mean(some):.1f}{spread}" if some else "")
        costs = [
            f"{np.median([row[key] for row in own if key in row]):.1f}"
            if any(key in row for row in own)
            else ""
            for key in ("cpu_s", "more_mb")
        ]
        lines.append([method, *cells, *costs])
    shares = [f"{sparsity:.0%}" for sparsity in sparsities]
    return text_table(lines, ["method", "dense", *shares, "CPU s", "MB"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=TASKS, default=list(TASKS))
    add("--replicates", type=int, default=3)
    add("--epochs", type=int, default=10)
    add("--images", type=int, default=20_000, help="to train on")
    add("--calibration", type=int, default=512, help="inputs that pruning sees")
    add("--out", type=Path, help="where results are kept")
    options = parser.parse_args()
    for name in options.models:
        task = TASKS[name]
        splits = loaded(task.data, options.images)
        rows = []
        for seed in range(options.replicates):
            file = options.out and options.out / f"{name}-{seed}.json"
            if file and file.exists():
                rows += json.loads(file.read_text())
                continue
            model = trained(task.build, splits, options.epochs, seed)
            found = list(measured(model, task, splits, options.calibration))
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, found)
            rows += found
        print(f"{name}, {options.replicates} replicates, {options.images} images")
        print(table(rows, task.sparsities), flush=True)


if __name__ == "__main__":
    main()
