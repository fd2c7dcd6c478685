"""How long must a training be for its masks? Accuracy against the steps spent.

    TFDS_DATA_DIR=... python benchmarks/mask_epochs.py [--epochs 8] [--levels 15]
                      [--masks full 2 auto] [--replicates 3] [--out runs/mask_epochs]

For each length of the trainings that find masks, searches for tickets of LeNet-300-100
on MNIST with layer-wise pruning, and prints the test accuracy at the early stop of
tickets with 21, 7 and 3.6 % of the weights that are trained in full. "full" finds masks
in the tickets' own trainings. Trainings that are stored in `--out` are not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import pandas as pd

import keras_lottery as kl
from keras_lottery.files import read_meta, write_atomically

REPORTED = (7, 12, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--levels", type=int, default=15)
    parser.add_argument("--masks", nargs="+", default=["full", "2", "1", "auto"])
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/mask_epochs"))
    options = parser.parse_args()
    splits = kl.data.load(options.data)
    rows = [run(splits, masks, options) for masks in options.masks]
    table = pd.DataFrame(rows)
    table.insert(2, "of full", table["mask steps"] / table["mask steps"].max())
    print(table.round(4).to_string(index=False))
    table.to_csv(options.out / "mask_epochs.csv", index=False)
    draw(table, options.out / "mask_epochs.png")


def run(splits: kl.data.Splits, masks: str, options: argparse.Namespace) -> dict:
    """Runs one search: steps spent on masks, total seconds, and accuracy by level."""
    recipe = kl.models.recipe("lenet_300_100")

    def build():
        model = kl.models.lenet_300_100(splits.input_shape, splits.classes)
        return kl.models.compile_model(model, recipe)

    reported = [level for level in REPORTED if level < options.levels]
    workers = options.workers
    search = kl.LotteryTicketSearch(
        build,
        kl.schedules.geometric(0.2, options.levels),
        allocation=kl.allocation.Layerwise(recipe.rates, 0.2),
        controls={},
        replicates=options.replicates,
        report_levels=[*reported, options.levels],
        directory=options.out / masks,
        workers=int(workers) if workers.isdigit() else workers,
    )
    clock = options.out / masks / "seconds.json"
    begun = json.loads(clock.read_text()) if clock.exists() else 0.0
    began = time.perf_counter()
    table = search.search(
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        batch_size=recipe.batch_size,
        epochs=options.epochs,
        eval_freq=100,
        mask_epochs=None if masks == "full" else _number(masks),
    )
    seconds = begun + time.perf_counter() - began
    if not begun:
        clock.write_text(json.dumps(seconds))
    row = {"masks": masks, "mask steps": spent(search), "seconds": seconds}
    for level in (0, *search.report_levels):  # noqa: B007
        of_level = table.query("level == @level and variant == 'ticket'")
        accuracy = 100 * of_level["early_stop_test_accuracy"]
        name = f"{100 * of_level['density'].mean():.1f} %"
        row |= {name: accuracy.mean(), f"± {name}": accuracy.std()}
    return row


def spent(search: kl.LotteryTicketSearch) -> int:
    """Steps of the trainings that found masks."""
    last = len(search.schedule)
    ids = [which for which in search.store.training_ids() if which.level < last]
    runs = [which for which in ids if which.variant == "mask_finding"]
    return sum(
        read_meta(search.store.training(which), "training")["curve"]["step"][-1]
        for which in runs or ids
    )


def _number(masks: str) -> float | str:
    return masks if masks == "auto" else float(masks)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Accuracy against the steps spent on masks, a line for each density."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    table = table.sort_values("mask steps")
    for name in table.columns:
        if name.endswith("%") and not name.startswith("±") and name != "100.0 %":
            axes.errorbar(
                table["mask steps"],
                table[name],
                table[f"± {name}"],
                marker="o",
                capsize=3,
                label=f"{name} of the weights",
            )
    for _, row in table.iterrows():
        at = (row["mask steps"], axes.get_ylim()[0])
        axes.annotate(row["masks"], at, ha="center", va="bottom", color="0.4")
    axes.axhline(table["100.0 %"].mean(), color="0.2", linewidth=1, label="dense")
    axes.set(xscale="log", xlabel="steps spent on finding masks", ylabel="accuracy (%)")
    axes.legend(frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


if __name__ == "__main__":
    main()
