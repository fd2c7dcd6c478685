"""How small can a file be? Pruning, shared values and a range coder, on MNIST.

    TFDS_DATA_DIR=... python benchmarks/small_files.py [plain shifts lenet_5]
                      [--validate] [--replicates 3] [--out runs/compression]

`plain` and `shifts` are LeNet-300-100, without augmentation and with images shifted by
up to a pixel; `lenet_5` first loses most of its filters and units. Dense networks are
trained with dropout. The first of them is then pruned gradually while it is trained on
the outputs of all of them for the training images, at a temperature, instead of on the
labels. The remaining weights are made to share a few values, which are trained in the
same way. The file is written, read again, and measured.

With `--validate`, 55,000 of the training images are used for training and the other
5,000 for evaluation. The training of `plain`, its density, and the dense training of
`shifts` were chosen in this way. The bits of `plain` are those of an earlier recipe,
which was measured on the test images; everything else was set by hand. Without
`--validate`, all 60,000 images are used for training, and errors are those on the test
images.

Reference:
    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd

import keras_lottery as kl
from keras_lottery.compress import load_compressed, save_compressed
from keras_lottery.data.splits import Arrays
from keras_lottery.in_fit.callbacks import SharedWeights

BATCH = 128
PIXELS = 28
TEMPERATURE = 4
LEARNING_RATE = 2e-3
SHARED_EPOCHS = 6


@dataclass(frozen=True)
class Case:
    """The network to compress, and its training.

    Args:
        model: a name of `models`.
        density: the share of weights that remain.
        bits: the number of bits of the shared values.
        teachers: the number of dense networks, each with its own initial weights.
        dense_epochs: the epochs of their training.
        epochs: the epochs of the training in which weights are pruned.
        dropout: the dropout rates of pixels and of hidden units in dense training.
        shifts: whether images are shifted by up to a pixel.
        filter_sparsity: the share of filters and units that is removed first.
    """

    model: str
    density: float
    bits: dict[str, int]
    teachers: int
    dense_epochs: int
    epochs: int
    dropout: tuple[float, float] = (0.0, 0.0)
    shifts: bool = False
    filter_sparsity: float = 0.0


CASES = {
    "plain": Case("lenet_300_100", 0.09, {"*": 4}, 3, 25, 20, dropout=(0.2, 0.3)),
    "shifts": Case(
        *("lenet_300_100", 0.065, {"output": 4, "*": 3}, 2, 40, 40),
        dropout=(0.0, 0.2),
        shifts=True,
    ),
    "lenet_5": Case("lenet_5", 0.06, {"*": 3}, 1, 3, 12, filter_sparsity=0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("cases", nargs="*", default=list(CASES), metavar="CASE", help=" ".join(CASES))
    add("--validate", action="store_true", help="hold out images to choose by")
    add("--replicates", type=int, default=3)
    add("--out", type=Path, default=Path("runs/compression"))
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"expected CASE among {list(CASES)}, received {sorted(unknown)}")
    splits = kl.data.load("mnist")
    train, test = splits.train, splits.validation
    if not options.validate:
        train = tuple(map(np.concatenate, zip(train, test, strict=True)))
        test = splits.test
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.cases:
        for seed in range(options.replicates):
            path = options.out / f"{name}_{seed}.klc"
            row = run(CASES[name], train, test, seed, path)
            rows.append({"case": name, "replicate": seed, **row})
            table = pd.DataFrame(rows)
            table.to_csv(options.out / "compression.csv", index=False)
            print(table.tail(1).round(3).to_string(index=False), flush=True)
    print(table.round(3).to_string(index=False))


def run(
    case: Case, train: Arrays, test: Arrays, seed: int, path: Path
) -> dict[str, float | int]:
    """Makes one model, from its initial weights to its file."""
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    x, labels = train
    images = batches(x, lambda _: labels, case.shifts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teachers = []
    for number in range(case.teachers):
        model = kl.models.get(case.model)(seed=case.teachers * seed + number)
        fit(with_dropout(model, case), images, case.dense_epochs, LEARNING_RATE, loss)
        teachers.append(model)
    model, dense = teachers[0], teachers[0].count_params()
    row: dict[str, Any] = {"weights": dense, "error dense, %": error(model, test)}
    images = batches(x, lambda moved: soft_targets(teachers, moved), case.shifts)
    model = kl.mask_model(model)
    if case.filter_sparsity:
        kl.prune(model, case.filter_sparsity, "l1", granularity="filter")
        model = kl.mask_model(kl.compact(model))
    pruning = kl.GradualPruning(
        1 - case.density, 0, case.epochs * len(images) * 6 // 10
    )
    fit(model, images, case.epochs, LEARNING_RATE, imitation, pruning)
    row["error pruned, %"] = error(model, test)
    kl.share_weights(model, case.bits)
    row["error shared, %"] = error(model, test)
    fit(model, images, SHARED_EPOCHS, LEARNING_RATE / 5, imitation, SharedWeights())
    report = save_compressed(model, path, float16=True)
    live = kl.get_masks(model).kept
    return row | {
        "left": live,
        "bits each": 8 * report.bytes / live,
        "bytes": report.bytes,
        "smaller": 4 * dense / report.bytes,
        "error, %": error(load_compressed(path), test),
        "seconds": time.perf_counter() - began,
    }


def fit(
    model: keras.Model,
    images: Any,
    epochs: int,
    learning_rate: float,
    loss: Any,
    *callbacks: keras.callbacks.Callback,
) -> None:
    """Trains with a learning rate that falls to zero."""
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(images))
    model.compile(
        keras.optimizers.Adam(rate),
        loss,
        # On CPUs, random numbers (those of dropout) and convolutions are slow in XLA.
        jit_compile=False,
        steps_per_execution=len(images) // 4,
    )
    # The data set itself gives the images in a new order.
    model.fit(
        images, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0
    )


@keras.saving.register_keras_serializable()
def imitation(targets: Any, logits: Any) -> Any:
    """Cross-entropy with soft targets; the square keeps the gradients' scale."""
    return TEMPERATURE**2 * keras.ops.categorical_crossentropy(
        targets, logits / TEMPERATURE, from_logits=True
    )


def soft_targets(teachers: list[keras.Model], x: np.ndarray) -> np.ndarray:
    """The mean of the teachers' probabilities at the temperature."""
    logits = [teacher.predict(x, batch_size=1000, verbose=0) for teacher in teachers]
    return np.mean(keras.ops.softmax(np.stack(logits) / TEMPERATURE), axis=0)


def error(model: keras.Model, test: Arrays) -> float:
    """The error in percent of the images."""
    x, labels = test
    classes = model.predict(x, batch_size=1000, verbose=0).argmax(axis=-1)
    return 100 * float(np.mean(classes != labels))


def with_dropout(model: keras.Model, case: Case) -> keras.Model:
    """The model with shared layers and dropout of pixels and of hidden units."""

    def layers() -> Iterator[keras.layers.Layer]:
        yield keras.Input(model.input_shape[1:])
        yield keras.layers.Dropout(case.dropout[0])
        for layer in model.layers:
            yield layer
            if layer.name.startswith("hidden"):
                yield keras.layers.Dropout(case.dropout[1])

    return keras.Sequential(list(layers()))


def batches(
    x: np.ndarray, targets_of: Callable[[np.ndarray], np.ndarray], shifts: bool
) -> Any:
    """Batches of the images in a new order each epoch, moved at random or not."""
    import tensorflow as tf

    margin = int(shifts)
    places = 2 * margin + 1
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))

    def cut(images: Any, place: Any) -> Any:
        i, j = place // places, place % places
        return images[:, i : i + PIXELS, j : j + PIXELS]

    images = tf.constant(padded)
    targets = tf.stack([targets_of(cut(padded, place)) for place in range(places**2)])
    # Sixteen images at a time: slices are much faster than single pixels.
    groups, steps = BATCH // 16, len(x) // BATCH

    def epoch(number: Any) -> Any:
        rows = tf.random.experimental.stateless_shuffle(tf.range(len(x)), [number, 0])
        moves = tf.random.stateless_uniform(
            (steps, groups), [number, 1], 0, places**2, tf.int32
        )
        rows = tf.reshape(rows[: steps * BATCH], (steps, BATCH))
        return tf.data.Dataset.from_tensor_slices((rows, moves))

    def batch(rows: Any, moves: Any) -> Any:
        parts = map(cut, tf.split(tf.gather(images, rows), groups), tf.unstack(moves))
        which = tf.stack([tf.repeat(moves, 16), rows], axis=1)
        return tf.concat(list(parts), axis=0), tf.gather_nd(targets, which)

    # Random operations would repeat in each epoch, so they count from a seed.
    number = tf.data.Dataset.random(rerandomize_each_iteration=True).take(1)
    data = number.flat_map(epoch).map(batch).prefetch(4)
    return data.apply(tf.data.experimental.assert_cardinality(steps))


if __name__ == "__main__":
    main()
