"""How accurate is LeNet-300-100 on MNIST if no weight is trained, but masks are found?

    TFDS_DATA_DIR=... python benchmarks/supermask.py [--replicates 3] [--epochs 20]

*Untrained* masks are those of `large_final_same_sign`: the dense network is trained,
the weights that became large and kept their sign are chosen, and all are reset to their
initial values. *Learned* masks are trained by `learn_masks` for the initial weights.
Prints test accuracies beside those of Zhou et al. 2019
(https://arxiv.org/abs/1905.01067), and writes them to `--json`. Only sparsities are
chosen on validation data.

`--widths 0.25 0.5 1 2` measures edge-popup in networks of these relative widths
instead. Malach et al. 2020 (https://arxiv.org/abs/2002.00585) prove that a sufficiently
wide random network has a subnetwork that approximates a trained network.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np

import keras_lottery as kl
from keras_lottery.data import Splits
from keras_lottery.files import write_json
from keras_lottery.keras_bridge.layers import get_state, set_state
from keras_lottery.pruning import prune_snapshot
from keras_lottery.search.settings import versions
from keras_lottery.tables import text_table

LEARNED: dict[str, dict[str, Any]] = {
    "learned": {"kind": "bernoulli", "rescale": False},
    "learned, rescaled": {"kind": "bernoulli"},
    "learned, rescaled, signed constants": {
        "kind": "bernoulli",
        "signed_constant": True,
    },
    "edge-popup": {"kind": "edge_popup"},
}
# The accuracies of Zhou et al. in percent.
PUBLISHED = {"untrained": 86, "learned": 95.3, "learned, rescaled": 98.0}


def lenet(splits: Splits, seed: int, width: float = 1) -> keras.Model:
    """LeNet-300-100 with hidden layers `width` times as wide."""
    keras.utils.set_random_seed(seed)
    sizes = [round(width * units) for units in (300, 100)]
    hidden = [
        keras.layers.Dense(
            units, "relu", kernel_initializer="glorot_normal", name=f"hidden_{i}"
        )
        for i, units in enumerate(sizes, start=1)
    ]
    output = keras.layers.Dense(
        splits.classes, kernel_initializer="glorot_normal", name="output"
    )
    inputs = keras.Input(splits.input_shape)
    return keras.Sequential([inputs, keras.layers.Flatten(), *hidden, output])


def compiled(model: keras.Model, rate: Any, jit: bool, batches: int) -> keras.Model:
    """Compiles a model with Adam, for epochs of the given number of batches."""
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit,
        steps_per_execution=next(n for n in range(50, 0, -1) if batches % n == 0),
    )
    return model


def accuracy(model: keras.Model, data: tuple[np.ndarray, np.ndarray]) -> float:
    return model.evaluate(*data, batch_size=1000, verbose=0)[1]


def untrained(
    splits: Splits, seed: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Masks of a trained network, applied to its initial weights."""
    model = kl.mask_model(lenet(splits, seed))
    batches = -(-len(splits.x_train) // options.batch_size)
    compiled(model, 1.2e-3, True, batches)
    initial, dense = get_state(model), kl.get_masks(model)
    model.fit(*splits.train, options.batch_size, epochs=options.dense_epochs, verbose=0)
    found = {"dense": {"accuracy": accuracy(model, splits.test), "density": 1.0}}
    snapshot = kl.Snapshot(
        masks=dense,
        final=get_state(model),
        initial=initial,
        rewind_point=initial,
        rng=np.random.default_rng(seed),
        shared_model=model,
    )
    # As in the paper, the output layer is pruned at half the rate of the others.
    allocation = kl.allocation.Layerwise({"output": 0.1}, 0.2)
    constant = {
        name: np.copysign(np.std(initial[name]), initial[name]) for name in dense
    }
    starts = {"untrained": initial, "untrained, signed constants": initial | constant}
    best = dict.fromkeys(starts, 0.0)
    for level in range(1, 21):
        sparsity = allocation.total_sparsity(1 - 0.8**level, dense)
        masks, _ = prune_snapshot(
            snapshot, sparsity, "large_final_same_sign", allocation
        )
        for name, start in starts.items():
            set_state(model, start, masks)
            validation = accuracy(model, splits.validation)
            if validation > best[name]:
                best[name] = validation
                found[name] = {
                    "accuracy": accuracy(model, splits.test),
                    "density": masks.density,
                }
    return found


def learned(
    splits: Splits,
    seed: int,
    settings: dict[str, Any],
    options: argparse.Namespace,
    width: float = 1,
) -> dict[str, float]:
    """A mask that is trained for the initial weights."""
    model = kl.learn_masks(lenet(splits, seed, width), seed=seed, **settings)
    batches = -(-len(splits.x_train) // options.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        options.rates[settings["kind"]], options.epochs * batches
    )
    # XLA draws random numbers slowly on CPUs.
    compiled(model, rate, False, batches)
    model.fit(*splits.train, options.batch_size, epochs=options.epochs, verbose=0)
    ticket = kl.learned_ticket(model)
    return {
        "accuracy": accuracy(ticket.initial_model(), splits.test),
        "density": ticket.masks.density,
    }


def measured(
    splits: Splits, seed: int, wanted: list[str], options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the name, and the accuracy and density, of each measurement."""
    if options.widths:
        for width in options.widths:
            run = learned(splits, seed, LEARNED["edge-popup"], options, width)
            yield f"edge-popup, width {width:g}", run
        return
    if "untrained" in wanted:
        yield from untrained(splits, seed, options).items()
    for name, settings in LEARNED.items():
        if name in wanted:
            yield name, learned(splits, seed, settings, options)


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over the replicates, in percent."""
    lines = []
    for name, runs in rows.items():
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f" ± {np.std(accuracies, ddof=1):.2f}" if len(runs) > 1 else ""
        density = 100 * np.mean([run["density"] for run in runs])
        mean = f"{np.mean(accuracies):.2f}{spread}"
        lines.append([name, mean, f"{density:.1f}", str(PUBLISHED.get(name, ""))])
    return text_table(lines, ["mask", "test accuracy", "weights left", "published"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--replicates", type=int, default=3)
    add("--epochs", type=int, default=20, help="that masks are learned for")
    add("--dense-epochs", type=int, default=5, help="of the dense network")
    add("--batch-size", type=int, default=125)
    add("--rate", type=float, default=0.04, help="Adam's first, of Bernoulli scores")
    add("--edge-popup-rate", type=float, default=0.01)
    add("--masks", nargs="+", choices=["untrained", *LEARNED], help="which to measure")
    add("--widths", type=float, nargs="+", help="edge-popup in such networks alone")
    add("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    options.rates = {"bernoulli": options.rate, "edge_popup": options.edge_popup_rate}
    wanted = options.masks or ["untrained", *list(LEARNED)[:3]]
    splits = kl.data.load("mnist")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.replicates):
        for name, run in measured(splits, seed, wanted, options):
            rows.setdefault(name, []).append(run)
            print(f"replicate {seed}: {name}: {run}", flush=True)
    print(f"Test accuracy in %, mean ± standard deviation, {options.replicates} trials")
    print(table(rows))
    if options.json:
        settings = {key: str(value) for key, value in vars(options).items()}
        write_json(options.json, {"settings": settings | versions(), "rows": rows})


if __name__ == "__main__":
    main()
