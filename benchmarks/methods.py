"""Which method finds the best sparse network? Accuracy against density and cost.

    TFDS_DATA_DIR=... python benchmarks/methods.py [--data mnist]
                      [--averaged 1] [--model lenet_300_100] [--epochs 5]
                      [--replicates 3] [--densities 50 20 10 5 2 1]
                      [--only imp snip rigl] [--out runs/methods]

Every method ends in a training of the same length, after which the test accuracy is
measured: the mean over replicates, ± their standard deviation. "cost" is the total
cost in trainings of that length, including the dense network if one is needed, but not
the passes that compute scores. Early-bird tickets are looked for five times an epoch,
because these trainings are short. Trainings that are stored in `--out` are not
repeated. Writes `methods.csv`, `methods.md` and `methods.png`.
"""

import argparse
import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import joblib
import keras
import pandas as pd

import keras_lottery as kl
from keras_lottery.files import read_json, write_atomically, write_json

# As in the papers, layers may lose all of their weights.
WHOLE = kl.allocation.Global(floor=0)
# Methods that prune before any training: (criterion, allocation).
AT_INIT = {
    "snip": ("snip", WHOLE),
    "grasp": ("grasp", WHOLE),
    "synflow": ("synflow", WHOLE),
    "magnitude at init": ("magnitude", WHOLE),
    "random ERK": ("random", "erk"),
}
UPDATES = 100  # steps between two updates of RigL and SET


def small_conv(shape: tuple[int, ...], classes: int, seed: int | None) -> keras.Model:
    """Three convolutions with normalisation: 14,576 prunable weights on CIFAR-10."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
    layers = [keras.Input(shape)]
    for width in (16, 32, 32):
        layers += [
            keras.layers.Conv2D(width, 3, 2, padding="same", use_bias=False),
            # With this momentum, the statistics settle even in a short training.
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)]
    return keras.Sequential(layers)


def small_resnet(shape: tuple[int, ...], classes: int, seed: int | None) -> keras.Model:
    """A ResNet-8 with 8, 16 and 32 filters."""
    return kl.models.resnet(8, shape, classes, width=8, seed=seed)


SMALL: dict[str, tuple[Callable[..., keras.Model], str, float]] = {
    "small_conv": (small_conv, "conv_2", 1e-3),
    "small_resnet": (small_resnet, "resnet_20", 0.02),
}
"""Networks for two cores, each with its recipe and its learning rate."""


class Study:
    """The settings that all methods share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        splits = kl.data.load(options.data)
        many = options.averaged
        self.splits = splits if many == 1 else splits.averaged(many)
        self.rate: float | None = None
        if options.model in SMALL:
            self.builder, recipe, self.rate = SMALL[options.model]
        else:
            self.builder, recipe = kl.models.get(options.model), options.model
        self.recipe = kl.models.recipe(recipe)
        self.batch_size = options.batch_size or self.recipe.batch_size
        self.steps = options.epochs * (len(self.splits.x_train) // self.batch_size)

    def build(self, seed: int | None = None) -> keras.Model:
        shape, classes = self.splits.input_shape, self.splits.classes
        return self.compile(self.builder(shape, classes, seed=seed))

    def compile(self, model: keras.Model) -> keras.Model:
        return kl.models.compile_model(model, self.recipe, learning_rate=self.rate)

    def search(self, name: str, levels: list[float], **settings) -> pd.DataFrame:
        """The tickets of a search: columns replicate, density, accuracy."""
        search = kl.LotteryTicketSearch(
            self.build,
            levels,
            controls={},
            replicates=self.options.replicates,
            directory=self.options.out / name.replace(" ", "_"),
            **settings,
        )
        table = search.search(
            *self.splits.train,
            validation_data=self.splits.validation,
            test_data=self.splits.test,
            batch_size=self.batch_size,
            epochs=self.options.epochs,
        )
        table = table.rename(columns={"final_test_accuracy": "accuracy"})
        return table[["replicate", "level", "density", "accuracy"]]

    def fit(self, model: keras.Model, *callbacks: keras.callbacks.Callback) -> float:
        """Trains a model for the common length; returns the test accuracy."""
        n = self.batch_size * (len(self.splits.x_train) // self.batch_size)
        x, y = self.splits.train
        model.fit(
            x[:n],
            y[:n],
            self.batch_size,
            self.options.epochs,
            callbacks=list(callbacks),
            verbose=0,
        )
        return model.evaluate(*self.splits.test, batch_size=1000, verbose=0)[1]


def imp(study: Study) -> pd.DataFrame:
    """Iterative magnitude pruning with rewinding; each level keeps at least 70 %."""
    levels, density = [], 1.0
    for target in study.options.densities:
        rounds = math.ceil(math.log(target / density) / math.log(0.7))
        levels += [1 - density * (target / density) ** (i / rounds)
                   for i in range(1, rounds + 1)]  # fmt: skip
        density = target
    table = study.search("imp", levels)
    return table.assign(cost=table["level"] + 1.0)


def at_init(study: Study, method: str) -> pd.DataFrame:
    criterion, allocation = AT_INIT[method]
    levels = [1 - density for density in study.options.densities]
    how = {"criterion": criterion, "allocation": allocation, "prune_at_init": True}
    return study.search(method, levels, **how).assign(cost=1.0)


def sparse_training(study: Study, sparsity: float, seed: int, method: str) -> tuple:
    model = kl.mask_model(study.build(seed))
    end = round(0.75 * study.steps)
    if method == "rigl":
        callback = kl.RigL(sparsity, end, study.splits.train, UPDATES, seed=seed)
    else:
        callback = kl.SET(sparsity, end, UPDATES, seed=seed)
    return study.fit(study.compile(model), callback), 1.0, kl.get_masks(model).density


def early_bird(study: Study, sparsity: float, seed: int) -> tuple:
    """Early-bird tickets with five masks per epoch, as the trainings are short."""
    model = kl.mask_model(study.build(seed))
    callback = kl.EarlyBird(sparsity)
    x, y = study.splits.train
    fifth = study.batch_size * (len(x) // study.batch_size // 5)
    parts = [slice(i * fifth, (i + 1) * fifth) for i in range(5)]
    # Epochs of a fifth of the data each, one after another.
    data = Parts(x, y, parts, study.batch_size)
    model.fit(data, epochs=5 * study.options.epochs, callbacks=[callback], verbose=0)
    cost = 1 + callback.steps / study.steps
    kl.set_masks(model, callback.masks)
    return study.fit(study.compile(model)), cost, kl.get_masks(model).density


class Parts(keras.utils.PyDataset):
    """Parts of the data in turn, one for each epoch."""

    def __init__(self, x, y, parts: list[slice], batch_size: int) -> None:
        super().__init__()
        self.x, self.y, self.parts, self.batch_size = x, y, parts, batch_size
        self.turns = itertools.cycle(parts)
        self.part = next(self.turns)

    def __len__(self) -> int:
        return (self.part.stop - self.part.start) // self.batch_size

    def __getitem__(self, index: int) -> tuple:
        first = self.part.start + index * self.batch_size
        rows = slice(first, first + self.batch_size)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        self.part = next(self.turns)


def admm(study: Study, sparsity: float, seed: int, **how: Any) -> tuple:
    """Trains a dense network, trains it with ADMM, and fine-tunes it."""
    frequency = max(1, study.steps // 15)
    return from_dense(
        study,
        seed,
        kl.ADMMPruning(sparsity, rho=1e-3, growth=1.3, frequency=frequency, **how),
    )


def elsa(study: Study, sparsity: float, seed: int) -> tuple:
    """Same as `admm`, with one budget for the network, ranked by curvature (ELSA)."""
    return admm(study, sparsity, seed, allocation=WHOLE, curvature=True)


def gradual(study: Study, sparsity: float, seed: int) -> tuple:
    """Trains a dense network, prunes it gradually, and fine-tunes it."""
    end = round(0.75 * study.steps)
    frequency = max(1, study.steps // 15)
    # A compiled model counts its steps from zero.
    return from_dense(study, seed, kl.GradualPruning(sparsity, 0, end, frequency))


def from_dense(study: Study, seed: int, callback: keras.callbacks.Callback) -> tuple:
    """Trains a dense network, then trains it with a callback that prunes it."""
    model = kl.mask_model(study.build(seed))
    study.fit(model)
    study.fit(study.compile(model), callback)
    return study.fit(study.compile(model)), 3.0, kl.get_masks(model).density


# One network at a time: (study, sparsity, seed) -> (accuracy, cost, density).
SINGLE: dict[str, Callable[[Study, float, int], tuple]] = {
    "rigl": lambda *args: sparse_training(*args, "rigl"),
    "set": lambda *args: sparse_training(*args, "set"),
    "early-bird": early_bird,
    "admm": admm,
    "elsa": elsa,
    "gradual": gradual,
}
METHODS = ["imp", *AT_INIT, *SINGLE]


def one_by_one(study: Study, methods: list[str]) -> pd.DataFrame:
    """Trainings in processes of one thread each, as many as there are cores."""
    cells = itertools.product(
        methods, study.options.densities, range(study.options.replicates)
    )
    jobs = (joblib.delayed(cell)(study.options, *which) for which in cells)
    # Of the processes that are made next; one that grows by the data is no leak.
    os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    os.environ["LOKY_MAX_MEMORY_LEAK_SIZE"] = "4e9"
    return pd.DataFrame(joblib.Parallel(n_jobs=-1)(jobs))


def cell(
    options: argparse.Namespace, method: str, density: float, replicate: int
) -> dict:
    name = method.replace(" ", "_")
    path = options.out / name / f"{100 * density:g}_{replicate}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        accuracy, cost, left = SINGLE[method](Study(options), 1 - density, replicate)
        row = {"replicate": replicate, "density": left, "accuracy": accuracy}
        write_json(path, {"method": method, **row, "cost": cost})
    return read_json(path)


def rows(study: Study) -> Iterator[pd.DataFrame]:
    asked = study.options.only
    if "imp" in asked:
        yield imp(study).assign(method="imp")
    for method in AT_INIT:
        if method in asked:
            yield at_init(study, method).assign(method=method)
    if single := [method for method in SINGLE if method in asked]:
        yield one_by_one(study, single)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="mnist")
    add("--model", default="lenet_300_100", choices=[*SMALL, *kl.models.names()])
    add("--averaged", type=int, default=1, help="average pixels of so many by so many")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, help="default: the model's recipe")
    add("--replicates", type=int, default=3)
    add("--densities", type=float, nargs="+", default=[50, 20, 10, 5, 2, 1])
    add("--only", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD")
    add("--out", type=Path, default=Path("runs/methods"))
    options = parser.parse_args()
    options.densities = [d / 100 for d in sorted(options.densities, reverse=True)]
    options.out.mkdir(parents=True, exist_ok=True)
    results = pd.concat(rows(Study(options)), ignore_index=True)
    results.to_csv(options.out / "methods.csv", index=False)
    # The densities that were requested, and the dense network.
    wanted = [1.0, *options.densities]
    nearest = results["density"].map(lambda d: min(wanted, key=lambda w: abs(w - d)))
    results = results[(results["density"] - nearest).abs() <= 0.1 * nearest]
    results = results.assign(density=nearest)
    text = table(results, [m for m in METHODS if m in options.only], options)
    print(text)
    (options.out / "methods.md").write_text(text + "\n")
    draw(results, options.out / "methods.png")


def table(
    results: pd.DataFrame, methods: list[str], options: argparse.Namespace
) -> str:
    """Markdown: a row for each method, a column for each density."""
    dense = 100 * results.query("density == 1")["accuracy"]
    heads = " | ".join(f"{100 * density:g} %" for density in options.densities)
    lines = [
        f"Dense: {dense.mean():.2f} ± {dense.std():.2f} %",
        "",
        f"| weights left | {heads} | cost |",
        "|---|" + "---|" * (len(options.densities) + 1),
    ]
    for method in methods:
        found = results.query("method == @method and density < 1")
        cells = []
        for density in options.densities:
            accuracy = 100 * found["accuracy"][found["density"] == density]
            cells.append(f"{accuracy.mean():.2f} ± {accuracy.std():.2f}")
        least, most = found["cost"].min(), found["cost"].max()
        cost = f"{least:.1f}" if least == most else f"{least:.1f} to {most:.1f}"
        lines.append(f"| {method} | {' | '.join(cells)} | {cost} |")
    return "\n".join(lines)


def draw(results: pd.DataFrame, path: Path) -> None:
    """Error against density, a line for each method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.6), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors
    for i, method in enumerate(METHODS):
        found = results.query("method == @method and density < 1")
        if len(found):
            found = found.assign(error=1 - found["accuracy"])
            by = 100 * found.groupby("density")["error"].agg(["mean", "std"])
            axes.errorbar(
                100 * by.index,
                by["mean"],
                by["std"],
                marker="o",
                markersize=4,
                capsize=3,
                color=colours[i],
                label=method,
            )
    dense = results.query("density == 1")["accuracy"].mean()
    axes.axhline(100 * (1 - dense), color="0.2", linewidth=1, label="dense")
    # IMP has further levels between the densities that were requested.
    others = results.query("method != 'imp' and density < 1")
    ticks = sorted((100 * others["density"]).round(1).unique())
    # Without logarithms, a network that lost a layer would press the others together.
    axes.set(xscale="log", yscale="log", xlabel="weights left (%)")
    axes.set(ylabel="test error (%)")
    axes.invert_xaxis()
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(pyplot.LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


if __name__ == "__main__":
    main()
