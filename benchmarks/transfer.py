"""Do tickets transfer from MNIST to CIFAR-10, and the other way round?


    TFDS_DATA_DIR=... python benchmarks/transfer.py [--epochs 8] [--replicates 3]

CIFAR-10 is converted to grey and cropped to 28x28, so that one network fits both. On
each data set, tickets are searched for. Each of them is then trained on the other data
set, with a new output layer (as in Morcos et al. 2019,
https://arxiv.org/abs/1906.02773). It is compared with its reinitialisation, random
masks, the ticket of that data set at the same level (`own`), and the dense network in
which the latter was found. Prints a table of test accuracies at the early stop, and
writes `transfer.csv` (a row for each training) and `transfer.json` (settings, the
table, and the paired verdicts) to `--out`. Trainings that are stored there are not
repeated.
"""

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import pandas as pd

import keras_lottery as kl
from keras_lottery.data import Splits
from keras_lottery.files import read_json, write_json
from keras_lottery.search.settings import check_same, versions

GREY = np.array([0.299, 0.587, 0.114], np.float32)


def small(splits: Splits, examples: int | None) -> Splits:
    """The data in grey at 28x28, with at most the requested number of examples."""

    def convert(images: np.ndarray) -> np.ndarray:
        margin = (images.shape[1] - 28) // 2
        images = images[:, margin : margin + 28, margin : margin + 28]
        return images @ GREY[:, None] if images.shape[-1] == 3 else images

    images = {
        part: convert(getattr(splits, part))
        for part in ("x_train", "x_validation", "x_test")
    }
    images["x_train"] = images["x_train"][:examples]
    labels = splits.y_train[:examples]
    return dataclasses.replace(
        splits, **images, y_train=labels, input_shape=(28, 28, 1)
    )


def search(
    name: str, splits: Splits, options: argparse.Namespace
) -> kl.LotteryTicketSearch:
    """Runs the search on one data set."""
    recipe = kl.models.recipe(options.model)

    def build():
        model = kl.models.get(options.model)(splits.input_shape, splits.classes)
        return kl.models.compile_model(model, recipe)

    found = kl.LotteryTicketSearch(
        build,
        schedule=kl.schedules.geometric(max(recipe.rates.values()), options.levels[-1]),
        allocation=kl.allocation.Layerwise(recipe.rates, max(recipe.rates.values())),
        controls={},
        replicates=options.replicates,
        directory=options.out / name,
    )
    found.search(
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        batch_size=recipe.batch_size,
        epochs=options.epochs,
        eval_freq=options.eval_freq,
    )
    return found


def compare(
    source: kl.LotteryTicketSearch,
    target: kl.LotteryTicketSearch,
    splits: Splits,
    level: int,
    replicate: int,
    options: argparse.Namespace,
) -> pd.DataFrame:
    """Trains the source's ticket and its controls on the target's data."""
    own = target.ticket(level, replicate)
    table = kl.compare_transfer(
        source.ticket(level, replicate),
        target.ticket(0, replicate).initial_model(),
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        replace=options.replace,
        controls={
            "reinit": options.trials,
            "random": options.trials,
            "own": (lambda ticket, snapshot: own, 1),
        },
        seed=replicate,
        batch_size=kl.models.recipe(options.model).batch_size,
        epochs=options.epochs,
        eval_freq=options.eval_freq,
    )
    return table.assign(replicate=replicate)


def mean_and_spread(accuracies: pd.Series) -> str:
    spread = f" ± {100 * accuracies.std():.2f}" if len(accuracies) > 1 else ""
    return f"{100 * accuracies.mean():.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="lenet_300_100", choices=kl.models.names())
    add("--levels", type=int, nargs="+", default=[3, 7, 11, 15], help="to transfer")
    add("--epochs", type=int, default=8, help="of every training (%(default)s)")
    add("--eval-freq", type=int, default=100, help="steps between validations")
    add("--replicates", type=int, default=3)
    add("--trials", type=int, default=1, help="of reinit and random, in each replicate")
    add("--replace", nargs="*", default=["output"], help="layers not carried over")
    add("--examples", type=int, help="training examples of each data set (all)")
    add("--out", type=Path, default=Path("runs/transfer"))
    options = parser.parse_args()
    options.levels.sort()
    settings = {key: str(value) for key, value in vars(options).items()}
    asked = options.out / "asked.json"
    grown = ("levels", "replicates")  # More of these may be requested later.
    fixed = {key: value for key, value in settings.items() if key not in grown}
    if asked.exists():
        check_same(read_json(asked), fixed, options.out)
    write_json(asked, fixed)
    splits = {
        name: small(kl.data.load(name), options.examples)
        for name in ("mnist", "cifar10")
    }
    searches = {name: search(name, data, options) for name, data in splits.items()}
    tables, verdicts = [], []
    for source, target in (("mnist", "cifar10"), ("cifar10", "mnist")):
        for level in options.levels:
            parts = []
            for replicate in range(options.replicates):
                path = (
                    options.out / f"{source}_to_{target}" / f"{level}_{replicate}.csv"
                )
                if not path.exists():
                    table = compare(
                        searches[source],
                        searches[target],
                        splits[target],
                        level,
                        replicate,
                        options,
                    )
                    path.parent.mkdir(exist_ok=True)
                    table.to_csv(path, index=False)
                parts.append(pd.read_csv(path))
            table = pd.concat(parts, ignore_index=True)
            place = {"source": source, "target": target, "at_level": level}
            verdict = kl.results.verdict(table)
            verdicts += [place | row for row in verdict.to_dict("records")]
            table.loc[table["level"] == 0, "variant"] = "dense"
            tables.append(table.assign(**place).drop(columns="level"))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(options.out / "transfer.csv", index=False)
    place = ["source", "target", "at_level"]
    summary = table.pivot_table(
        index=place,
        columns="variant",
        values="early_stop_test_accuracy",
        aggfunc=mean_and_spread,
        sort=False,
    )
    density = table[table["variant"] == "ticket"].groupby(place)["density"].mean()
    summary = summary[["ticket", "reinit", "random", "own", "dense"]]
    summary.insert(0, "weights left, %", (100 * density).round(2))
    print("Test accuracy at the early stop, %: mean ± standard deviation of trainings")
    print(summary.to_string())
    report = {
        "settings": settings | versions(),
        "table": summary.reset_index().to_dict("records"),
        "verdicts": verdicts,
    }
    write_json(options.out / "transfer.json", report)


if __name__ == "__main__":
    main()
