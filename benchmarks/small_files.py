"""How small can a file be? Pruning, shared values and a range coder, on MNIST.

    TFDS_DATA_DIR=... python benchmarks/small_files.py [plain shifts lenet_5]
                      [--replicates 3] [--out runs/compression]

`plain` and `shifts` are LeNet-300-100, without augmentation and with images moved by up
to a pixel; `lenet_5` first loses most of its filters and units. Each is trained on all
60,000 images with dropout and a falling learning rate, its weights pruned gradually
meanwhile; those left come to share a few values, which are trained; and the file is
written, read again, and measured on the test images. As training takes all the others,
none are held out to choose by: the cases' settings were set by hand, and errors are to
be read as those of settings that may suit the test images.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd

import keras_lottery as kl
from keras_lottery.compress import SharedWeights, load_compressed, save_compressed

BATCH = 128
PIXELS = 28


@dataclass(frozen=True)
class Case:
    """What is compressed, and how it is trained.

    Args:
        model: a name of `models`.
        density: the share of the weights that is left.
        bits: of the shared values.
        epochs: of the training in which weights are pruned.
        shared_epochs: of the training of the shared values.
        dropout: after each hidden layer.
        learning_rate: Adam's, from which it falls to zero.
        shifts: whether images are moved by up to a pixel.
        filter_sparsity: the share of filters and units that is removed first.
        filter_epochs: before that.
    """

    model: str
    density: float
    bits: dict[str, int]
    epochs: int
    shared_epochs: int
    dropout: float = 0.2
    learning_rate: float = 2e-3
    shifts: bool = False
    filter_sparsity: float = 0.0
    filter_epochs: int = 0


CASES = {
    "plain": Case("lenet_300_100", 0.08, {"*": 4}, epochs=110, shared_epochs=10),
    "shifts": Case(
        "lenet_300_100",
        0.07,
        {"output": 4, "*": 3},
        epochs=110,
        shared_epochs=12,
        dropout=0.0,
        shifts=True,
    ),
    "lenet_5": Case(
        "lenet_5",
        0.05,
        {"*": 3},
        epochs=30,
        shared_epochs=5,
        dropout=0.0,
        filter_sparsity=0.6,
        filter_epochs=2,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("cases", nargs="*", default=list(CASES), metavar="CASE", help=" ".join(CASES))
    add("--replicates", type=int, default=3)
    add("--density", type=float, help="instead of the case's own")
    add("--epochs", type=int, help="instead of the case's own")
    add("--shared-epochs", type=int, help="instead of the case's own")
    add("--dropout", type=float, help="instead of the case's own")
    add("--out", type=Path, default=Path("runs/compression"))
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"expected CASE among {list(CASES)}, received {sorted(unknown)}")
    given = {
        name: value
        for name in ("density", "epochs", "shared_epochs", "dropout")
        if (value := getattr(options, name)) is not None
    }
    splits = kl.data.load("mnist")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.cases:
        for seed in range(options.replicates):
            path = options.out / f"{name}_{seed}.klc"
            row = run(replace(CASES[name], **given), splits, seed, path)
            rows.append({"case": name, "replicate": seed, **row})
            table = pd.DataFrame(rows)
            table.to_csv(options.out / "compression.csv", index=False)
    print(table.round(3).to_string(index=False))


def run(
    case: Case, splits: kl.data.Splits, seed: int, path: Path
) -> dict[str, float | int]:
    """One model, from its initial weights to its file."""
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    x = np.concatenate([splits.x_train, splits.x_validation])
    y = np.concatenate([splits.y_train, splits.y_validation])
    images = batches(x, y, case.shifts, seed)
    model = with_dropout(kl.models.get(case.model)(seed=seed), case.dropout)
    dense = model.count_params()
    if case.filter_sparsity:
        model = without_filters(model, images, case)
    model = kl.mask_model(model)
    row: dict[str, Any] = {"weights": dense}
    steps = case.epochs * len(images)
    pruning = kl.GradualPruning(1 - case.density, steps // 10, steps * 6 // 10)
    fit(model, images, case.epochs, case.learning_rate, pruning)
    row["error pruned, %"] = error(model, splits)
    row["trained, s"] = time.perf_counter() - began
    kl.compress.compress(model, case.bits)
    row["error shared, %"] = error(model, splits)
    fit(model, images, case.shared_epochs, case.learning_rate / 10, SharedWeights())
    report = save_compressed(model, path, float16=True)
    live = kl.get_masks(model).kept
    return row | {
        "left": live,
        "bits each": 8 * report.bytes / live,
        "bytes": report.bytes,
        "smaller": 4 * dense / report.bytes,
        "error, %": error(load_compressed(path), splits),
        "seconds": time.perf_counter() - began,
    }


def without_filters(model: keras.Model, images: Any, case: Case) -> keras.Model:
    """The model, trained a little, without the filters and units of least worth."""
    masked = kl.mask_model(model)
    fit(masked, images, case.filter_epochs, case.learning_rate)
    kl.prune_filters(masked, case.filter_sparsity)
    small, report = kl.compact(masked, return_report=True)
    print(report)
    return small


def fit(
    model: keras.Model,
    images: Any,
    epochs: int,
    learning_rate: float,
    *callbacks: keras.callbacks.Callback,
) -> None:
    """Trains with a learning rate that falls to zero."""
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(images))
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # On CPUs, random numbers (those of dropout) and convolutions are slow in XLA.
        jit_compile=False,
        steps_per_execution=len(images) // 4,
    )
    # The images come in a new order by themselves.
    model.fit(
        images, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0
    )


def error(model: keras.Model, splits: kl.data.Splits) -> float:
    """Per cent of the test images."""
    classes = model.predict(splits.x_test, batch_size=1000, verbose=0).argmax(axis=-1)
    return 100 * float(np.mean(classes != splits.y_test))


def with_dropout(model: keras.Model, rate: float) -> keras.Model:
    """The model with dropout behind its hidden Dense layers."""

    def layers() -> Iterator[keras.layers.Layer]:
        yield keras.Input(model.input_shape[1:])
        for layer in model.layers:
            yield layer
            if rate and layer.name.startswith("hidden"):
                yield keras.layers.Dropout(rate, name=f"dropout_{layer.name}")

    return keras.Sequential(list(layers()), name=model.name)


def batches(x: np.ndarray, y: np.ndarray, shifts: bool, seed: int) -> Any:
    """Batches of the images in a new order each epoch, moved at random or not."""
    import tensorflow as tf

    margin = int(shifts)
    images = tf.constant(
        np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    )
    labels = tf.constant(y)

    def cut(rows: Any) -> Any:
        batch = tf.gather(images, rows)
        if shifts:
            # Sixteen images at a time: slices are much faster than single pixels.
            moves = tf.random.uniform((BATCH // 16, 2), 0, 3, tf.int32)
            batch = tf.concat(
                [
                    part[:, i : i + PIXELS, j : j + PIXELS]
                    for part, (i, j) in zip(
                        tf.split(batch, BATCH // 16),
                        map(tf.unstack, tf.unstack(moves)),
                        strict=True,
                    )
                ],
                axis=0,
            )
        return batch, tf.gather(labels, rows)

    rows = tf.data.Dataset.range(len(x)).shuffle(len(x), seed)
    return rows.batch(BATCH, drop_remainder=True).map(cut).prefetch(4)


if __name__ == "__main__":
    main()
