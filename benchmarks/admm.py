"""ADMM pruning of LeNet-5 on MNIST: how many times fewer weights, and bytes, at 99 %?

    TFDS_DATA_DIR=... python benchmarks/admm.py [--ratio 80] [--replicates 3]
                      [--conv-bits 3] [--bits 2] [--out runs/admm]

Trains the dense network, trains it further with `ADMMPruning` (Zhang et al. 2018,
https://arxiv.org/abs/1804.03294), which prunes it, and fine-tunes the remaining
weights. With `--bits`, units and filters that nothing reads are removed, and ADMM moves
the remaining weights to levels (Ren et al. 2019), which `SharedWeights` then trains.
Both train on labels or, with `--distil`, on the outputs of the dense network for the
training images (Hinton et al. 2015). The file is written, read again, and measured.
Prints the remaining weights of each layer and the test accuracies at the last epoch of
each training, and writes them to `admm.json`. Trainings that are stored in `--out` are
not repeated.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
import pandas as pd

import keras_lottery as kl
from keras_lottery.files import write_json

TEMPERATURE = 4


def train(
    model: keras.Model,
    splits: kl.data.Splits,
    epochs: int,
    options: argparse.Namespace,
    *callbacks: keras.callbacks.Callback,
    soft_targets: np.ndarray | None = None,
) -> float:
    """Trains with a learning rate that falls to zero; returns the test accuracy.

    On labels, or on what another network says of the images.
    """
    x, targets = splits.train
    steps = max(1, epochs * -(-len(x) // options.batch_size))
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    kl.models.compile_model(model, kl.models.recipe(options.model), learning_rate=rate)
    if soft_targets is not None:
        targets = soft_targets
        model.compile(model.optimizer, imitation, jit_compile=False)
    model.fit(
        x,
        targets,
        batch_size=options.batch_size,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=2,
    )
    return test_accuracy(model, splits)


@keras.saving.register_keras_serializable()
def imitation(targets: Any, logits: Any) -> Any:
    """Cross-entropy with soft targets; the square keeps the gradients' scale."""
    return TEMPERATURE**2 * keras.ops.categorical_crossentropy(
        targets, logits / TEMPERATURE, from_logits=True
    )


def smaller(model: keras.Model) -> keras.Model:
    """The masked model without the units and filters that nothing reads."""
    small = kl.mask_model(kl.compact(model))
    state = kl.get_state(small)
    masks = {name: state[name] != 0 for name in kl.get_masks(small)}
    kl.set_masks(small, kl.Masks(masks))
    return small


class Stages:
    """Trains a network from its initial weights, unless the training is stored."""

    def __init__(
        self, splits: kl.data.Splits, seed: int, options: argparse.Namespace
    ) -> None:
        keras.utils.set_random_seed(seed)
        self.splits, self.options = splits, options
        self.folder = options.out / f"seed_{seed}"
        self.folder.mkdir(exist_ok=True)
        build = kl.models.get(options.model)
        self.model = kl.mask_model(build(splits.input_shape, splits.classes, seed=seed))
        self.accuracy: dict[str, float] = {}
        self.seconds = 0.0

    def train(
        self,
        stage: str,
        epochs: int,
        *callbacks: keras.callbacks.Callback,
        soft_targets: np.ndarray | None = None,
    ) -> None:
        path = self.folder / f"{stage}.keras"
        began = time.perf_counter()
        if path.exists():
            self.model = keras.models.load_model(path, compile=False)
            self.accuracy[stage] = test_accuracy(self.model, self.splits)
        else:
            how = self.model, self.splits, epochs, self.options, *callbacks
            self.accuracy[stage] = train(*how, soft_targets=soft_targets)
            self.model.save(path)
        self.seconds += time.perf_counter() - began


def prune(splits: kl.data.Splits, seed: int, options: argparse.Namespace) -> dict:
    """Trains, prunes and fine-tunes one network, and writes its file."""
    stages = Stages(splits, seed, options)
    sparsity = 1 - 1 / options.ratio
    admm = {
        "rho": options.rho,
        "growth": options.growth,
        "frequency": options.frequency,
        "allocation": options.allocation,
    }
    stages.train("dense", options.dense_epochs)
    pruning = kl.ADMMPruning(sparsity, **admm)
    stages.train("pruned", options.admm_epochs, pruning)
    stages.train("fine-tuned", options.tune_epochs)
    masks = kl.get_masks(stages.model)
    row = {
        "seed": seed,
        "weights": masks.kept,
        "ratio": masks.size / masks.kept,
        "residuals": pruning.residuals,
        "left": {name: int(mask.sum()) for name, mask in masks.items()},
    }
    if options.bits:
        row |= to_levels(stages)
    print(kl.sparsity_summary(stages.model))
    return row | {"test accuracy": stages.accuracy, "seconds": stages.seconds}


def to_levels(stages: Stages) -> dict:
    """Moves the pruned network to levels, trains these, and writes the file."""
    options = stages.options
    soft = None
    if options.distil:
        dense = keras.models.load_model(stages.folder / "dense.keras", compile=False)
        logits = dense.predict(stages.splits.x_train, batch_size=1000, verbose=0)
        soft = np.asarray(keras.ops.softmax(logits / TEMPERATURE))
    stages.model = smaller(stages.model)
    levels = kl.ADMMPruning(
        kl.get_sparsity(stages.model),
        rho=options.level_rho,
        growth=options.level_growth,
        bits={"conv*": options.conv_bits, "*": options.bits},
        rounds=options.rounds,
    )
    name = f"levels {options.conv_bits} {options.bits}"
    stages.train(name, options.level_epochs, levels, soft_targets=soft)
    shared = kl.callbacks.SharedWeights()
    stages.train(f"{name} trained", options.share_epochs, shared, soft_targets=soft)
    path = stages.folder / f"{name}.klc".replace(" ", "_")
    report = kl.save_compressed(stages.model, path, float16=True)
    stages.accuracy["file"] = test_accuracy(kl.load_compressed(path), stages.splits)
    return {
        "bytes": report.bytes,
        "data bytes": report.data_bytes,
        "index bytes": report.index_bytes,
        "level residuals": levels.residuals,
    }


def test_accuracy(model: keras.Model, splits: kl.data.Splits) -> float:
    """The share of the test images that a model classifies correctly."""
    x, labels = splits.test
    classes = model.predict(x, batch_size=1000, verbose=0).argmax(axis=-1)
    return float((classes == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="mnist")
    add("--model", default="lenet_5", choices=kl.models.names())
    add("--ratio", type=float, default=80, help="times fewer weights (%(default)s)")
    add("--dense-epochs", type=int, default=5)
    add("--admm-epochs", type=int, default=15)
    add("--tune-epochs", type=int, default=15)
    add("--bits", type=int, help="of the levels (none)")
    add("--conv-bits", type=int, default=3, help="of the levels of convolutions")
    add("--level-epochs", type=int, default=10)
    add("--level-rho", type=float, default=2e-2)
    add("--level-growth", type=float, default=1.4)
    add("--distil", action="store_true", help="levels learn from the dense network")
    add("--rounds", type=int, default=0, help="in which levels are held")
    add("--share-epochs", type=int, default=8, help="of the levels' own training")
    add("--batch-size", type=int, default=128)
    add("--learning-rate", type=float, default=1e-3, help="of Adam, at first")
    add("--rho", type=float, default=1e-3)
    add("--growth", type=float, default=1.3, help="of rho at each update")
    add("--frequency", type=int, help="steps between updates (an epoch)")
    add("--allocation", default="global")
    add("--replicates", type=int, default=3)
    add("--seed", type=int, default=0, help="of the first replicate")
    add("--out", type=Path, default=Path("runs/admm"))
    options = parser.parse_args()
    splits = kl.data.load(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(options).items()}
    runs = []
    for replicate in range(options.replicates):
        runs.append(prune(splits, options.seed + replicate, options))
        write_json(options.out / "admm.json", {"settings": settings, "runs": runs})
    table = pd.DataFrame(
        {
            "seed": run["seed"],
            "weights": run["weights"],
            "ratio": round(run["ratio"], 1),
            **{name: f"{a:.2%}" for name, a in run["test accuracy"].items()},
            **{name: run[name] for name in ("bytes", "data bytes") if name in run},
            "seconds": round(run["seconds"]),
        }
        for run in runs
    )
    print("Test accuracy, and the bytes of the file and of its weights' numbers alone")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
