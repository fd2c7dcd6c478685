"""Accuracy, bytes and latency of a small BERT without half of its heads and units.

    keras-lottery reproduce bert_tickets --scale cpu
    python benchmarks/transformers.py --run runs/reproduce/bert_tickets_cpu
                      [--steps 500] [--replicates 3] [--tasks noun_class is_a]

The first command trains the small BERT on WordNet's glosses, and compares its tickets
with their controls, and on which tasks masks transfer. The second command takes the
pre-trained weights and, on each task, fine-tunes the dense network; removes half of the
heads and of the feed-forward units, by magnitude and without training; and trains the
remaining network for as many steps, by `keras.distillation` with the dense network as
the teacher, or without a teacher. Bytes, latency and accuracy are those of .tflite
files, measured by `kl.benchmark`. `--layers` is the number of blocks to remove first,
and `--width` the share of the embeddings' channels.
"""

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import pandas as pd

import keras_lottery as kl
from keras_lottery.papers.experiments.bert_tickets import TASKS, PreTrained
from keras_lottery.search.records import Reader
from keras_lottery.search.store import Store, TrainingId

RATE, BATCH = 3e-4, 32
TEMPERATURE = 2.0
CALIBRATION = 256
"""The number of examples on which blocks and channels are measured."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="of `reproduce bert_tickets`")
    add("--steps", type=int, default=500, help="of each training (%(default)s)")
    add("--sparsity", type=float, default=0.5, help="of heads, units (%(default)s)")
    add("--layers", type=int, default=0, help="blocks to drop (%(default)s)")
    add("--width", type=float, default=0.0, help="of embeddings (%(default)s)")
    add("--replicates", type=int, default=3)
    add("--tasks", nargs="+", choices=TASKS, default=TASKS)
    add("--out", type=Path, default=Path("runs/transformers"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    which = TrainingId(0, 0, "training")
    _, states, _ = Reader(Store(options.run / "pre_training")).training(which, "final")
    build = PreTrained(kl.models.bert_small, states["final"])
    rows: list[dict[str, Any]] = []
    for task in options.tasks:
        splits = kl.data.load(f"wordnet_{task}")
        for seed in range(options.replicates):
            rows += replicate(task, splits, build, seed, options)
            pd.DataFrame(rows).to_csv(options.out / "transformers.csv", index=False)
    table = pd.DataFrame(rows)
    mean = table.groupby(["task", "model"], sort=False).mean(numeric_only=True)
    print(f"Means of {options.replicates} replicates; files of LiteRT, one thread")
    print(mean.drop(columns="replicate").round(4).to_string())


def replicate(
    task: str,
    splits: kl.data.Splits,
    build: PreTrained,
    seed: int,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The rows of one seed."""
    keras.utils.set_random_seed(seed)
    dense = build(splits.input_shape, splits.classes)
    fit(dense, splits, options.steps, seed)
    # These are three copies with the same weights.
    pruned, distilled, tuned = (smaller(dense, splits, options) for _ in range(3))
    fit(distilled, splits, options.steps, seed, teacher=dense)
    fit(tuned, splits, options.steps, seed)
    models = {
        "dense": dense,
        "pruned": pruned,
        "distilled": distilled,
        "fine-tuned": tuned,
    }
    files = [options.out / f"{task}_{name}_{seed}.tflite" for name in models]
    for model, file in zip(models.values(), files, strict=True):
        kl.export.to_litert(model, file)
    measured = kl.benchmark(files, splits.test).assign(model=list(models))
    measured = measured.set_index("model")
    whole = measured.loc["dense"]
    return [
        {
            "task": task,
            "model": name,
            "replicate": seed,
            "parameters": models[str(name)].count_params(),
            "bytes": row["bytes"],
            "bytes/dense": row["bytes"] / whole["bytes"],
            "p50, us": row["p50_us"],
            "p50/dense": row["p50_us"] / whole["p50_us"],
            "accuracy, %": 100 * row["accuracy"],
        }
        for name, row in measured.iterrows()
    ]


def smaller(
    dense: keras.Model, splits: kl.data.Splits, options: argparse.Namespace
) -> keras.Model:
    """The dense network without what is least important to it."""
    x = splits.x_train[:CALIBRATION]
    if options.layers:
        dense = kl.drop_blocks(dense, options.layers, x)
    if options.width:
        dense = kl.narrow(dense, options.width, x)
    masked = kl.mask_model(dense, kl.models.recipe("bert_small").prunable)
    for granularity in ("head", "filter"):
        how = {"granularity": granularity, "allocation": "uniform"}
        kl.prune(masked, options.sparsity, **how)
    return kl.compact(masked)


def fit(
    model: keras.Model,
    splits: kl.data.Splits,
    steps: int,
    seed: int,
    teacher: keras.Model | None = None,
) -> None:
    """Trains with a learning rate that falls to zero, from the labels or a teacher."""
    keras.utils.set_random_seed(seed)
    trained: keras.Model = model
    if teacher is not None:
        logits = keras.distillation.LogitsDistillation(temperature=TEMPERATURE)
        trained = keras.distillation.Distiller(teacher, model, [logits])
    rate = keras.optimizers.schedules.PolynomialDecay(RATE, steps, 0.0)
    trained.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    x, y = splits.train
    epochs = -(-steps * BATCH // len(x))
    per_epoch = steps // epochs
    trained.fit(
        x[: per_epoch * BATCH],
        y[: per_epoch * BATCH],
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
    )


if __name__ == "__main__":
    main()
