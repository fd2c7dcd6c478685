"""ADMM pruning of LeNet-5 on MNIST: how many times fewer weights at 99 %?

    TFDS_DATA_DIR=... python benchmarks/admm.py [--ratio 50] [--replicates 1]
                      [--out runs/admm]

Trains the dense network, trains it on with `ADMMPruning` (Zhang et al. 2018,
https://arxiv.org/abs/1804.03294), which prunes it, and fine-tunes what is left. Prints
the weights left in each layer and the test accuracies, of the last epoch of each
training, and writes them to `admm.json`.
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
    return model.evaluate(*splits.test, batch_size=1000, verbose=0)[1]


def prune(splits: kl.data.Splits, seed: int, options: argparse.Namespace) -> dict:
    """One network from its first weights to the fine-tuned ticket."""
    keras.utils.set_random_seed(seed)
    began = time.perf_counter()
    build = kl.models.get(options.model)
    model = kl.mask_model(build(splits.input_shape, splits.classes, seed=seed))
    accuracy = {}
    accuracy["dense"] = train(
        model, splits, options.dense_epochs, options.learning_rate, options
    )
    admm = kl.ADMMPruning(
        1 - 1 / options.ratio,
        rho=options.rho,
        growth=options.growth,
        frequency=options.frequency,
        allocation=options.allocation,
    )
    accuracy["pruned"] = train(
        model, splits, options.admm_epochs, options.learning_rate, options, admm
    )
    accuracy["fine-tuned"] = train(
        model, splits, options.tune_epochs, options.learning_rate, options
    )
    masks = kl.get_masks(model)
    print(kl.sparsity_summary(model))
    return {
        "seed": seed,
        "weights": masks.kept,
        "ratio": masks.size / masks.kept,
        "test accuracy": accuracy,
        "residuals": admm.residuals,
        "left": {name: int(mask.sum()) for name, mask in masks.items()},
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="mnist")
    add("--model", default="lenet_5", choices=kl.models.names())
    add("--ratio", type=float, default=50, help="times fewer weights (%(default)s)")
    add("--dense-epochs", type=int, default=5)
    add("--admm-epochs", type=int, default=15)
    add("--tune-epochs", type=int, default=15)
    add("--batch-size", type=int, default=128)
    add("--learning-rate", type=float, default=1e-3, help="of Adam, at first")
    add("--rho", type=float, default=1e-3)
    add("--growth", type=float, default=1.3, help="of rho at each update")
    add("--frequency", type=int, help="steps between updates (an epoch)")
    add("--allocation", default="global")
    add("--replicates", type=int, default=1)
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
            "last residual": round(run["residuals"][-1], 4),
            "seconds": round(run["seconds"]),
        }
        for run in runs
    )
    print("Test accuracy; residual: ||W - Z|| / ||W|| of the last ADMM update")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
