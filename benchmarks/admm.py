"""ADMM pruning of LeNet-5 on MNIST: how many times fewer weights, and bytes, at 99 %?

    TFDS_DATA_DIR=... python benchmarks/admm.py [--ratio 80] [--replicates 3]
                      [--conv-bits 3] [--bits 2] [--out runs/admm]

Trains the dense network, trains it on with `ADMMPruning` (Zhang et al. 2018,
https://arxiv.org/abs/1804.03294), which prunes it, and fine-tunes what is left. With
`--bits`, the weights left then come to levels by ADMM (Ren et al. 2019), which are
trained by `SharedWeights`; the file is written, read again, and measured. Prints the
weights left in each layer and the test accuracies, of the last epoch of each training,
and writes them to `admm.json`. Trainings that `--out` holds are not done again.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import pandas as pd

import keras_lottery as kl
from keras_lottery.files import write_json


def train(
    model: keras.Model,
    splits: kl.data.Splits,
    epochs: int,
    learning_rate: float,
    options: argparse.Namespace,
    *callbacks: keras.callbacks.Callback,
) -> float:
    """Trains the model, with a rate that falls to 0; the test accuracy."""
    steps = max(1, epochs * -(-len(splits.x_train) // options.batch_size))
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    kl.models.compile_model(model, kl.models.recipe(options.model), learning_rate=rate)
    model.fit(
        *splits.train,
        batch_size=options.batch_size,
        epochs=epochs,
        validation_data=splits.validation,
        callbacks=list(callbacks),
        verbose=2,
    )
    return test_accuracy(model, splits)


class Stages:
    """A network from its first weights on; what is stored is not trained again."""

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
        self, stage: str, epochs: int, *callbacks: keras.callbacks.Callback
    ) -> None:
        path = self.folder / f"{stage}.keras"
        began = time.perf_counter()
        rate = self.options.learning_rate
        if path.exists():
            self.model = keras.models.load_model(path)
            self.accuracy[stage] = test_accuracy(self.model, self.splits)
        else:
            accuracy = train(
                self.model, self.splits, epochs, rate, self.options, *callbacks
            )
            self.accuracy[stage] = accuracy
            self.model.save(path)
        self.seconds += time.perf_counter() - began


def prune(splits: kl.data.Splits, seed: int, options: argparse.Namespace) -> dict:
    """One network from its first weights to the fine-tuned ticket, and its file."""
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
        bits = {"conv*": options.conv_bits, "*": options.bits}
        levels = kl.ADMMPruning(sparsity, **admm, bits=bits, rounds=options.rounds)
        stages.train("levels", options.level_epochs, levels)
        if options.share_epochs:
            shared = kl.callbacks.SharedWeights()
            stages.train("levels trained", options.share_epochs, shared)
        path = stages.folder / "model.klc"
        report = kl.save_compressed(stages.model, path, float16=True)
        again = kl.load_compressed(path)
        stages.accuracy["file"] = test_accuracy(again, splits)
        row |= {"bytes": report.bytes, "data bytes": report.data_bytes}
        row |= {"index bytes": report.index_bytes, "level residuals": levels.residuals}
    print(kl.sparsity_summary(stages.model))
    return row | {"test accuracy": stages.accuracy, "seconds": stages.seconds}


def test_accuracy(model: keras.Model, splits: kl.data.Splits) -> float:
    """The share of the test images that a model is right about."""
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
    add("--rounds", type=int, default=0, help="in which levels are held")
    add("--share-epochs", type=int, default=10, help="of the levels' own training")
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
