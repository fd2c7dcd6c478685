"""How often is the verdict wrong, and how often does it find a ticket that matches?

    python benchmarks/verdict.py [--searches 2000]

Simulates tables of searches whose tickets have a known quality, lets the library judge
them, and prints a row for each case: how many of the levels are called better, matching
or worse; how often the search names a level that is shown to match (with Holm's
correction), and which level on average. It also prints the same for a fixed sequence,
from dense to sparse up to the first level that does not match, a method that the
library does not use.

Tickets are exactly as good as the dense network, worse by exactly the margin, or as
good as those of docs/figures/mnist.csv. Accuracies are noisy in one of two ways: with
`own images`, each network is validated on images of its own, which is noisier than in
practice; with `same images`, differences spread as measured, by 0.13 percentage points
(MNIST) and 0.4 (digits), and are rounded to an image. `AUC-like` is a metric that is
not an accuracy, and its margin is the standard deviation of the dense networks.
"""

import argparse
import os
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import pandas as pd
from scipy import stats

from keras_lottery.engines.objective import Objective
from keras_lottery.search.margin import LEAST
from keras_lottery.search.paired import (
    BETTER,
    ERROR,
    MATCHING,
    UNDECIDED,
    WORSE,
    holm,
    resolution,
)
from keras_lottery.search.results import verdict
from keras_lottery.tables import text_table

# The difference of the ticket from the dense network on the validation data, by level,
# in docs/figures/mnist.csv.
MEASURED = 0.01 * np.array(
    [0.05, 0.09, 0.19, 0.28, 0.26, 0.23, 0.25, 0.28, 0.22, 0.3, 0.24, 0.28, 0.15, 0, 0]
)


NOISES = ("own images", "same images", "AUC-like")


@dataclass(frozen=True)
class Case:
    """A search: levels, validation examples, accuracy, and noise of the networks."""

    name: str
    levels: int
    examples: int
    accuracy: float
    own_images: float
    same_images: float


CASES = (
    Case("MNIST", 15, 5000, 0.98, 0.001, 0.0013),
    Case("digits", 6, 360, 0.97, 0.004, 0.004),
)


def simulate(
    case: Case, replicates: int, gains: np.ndarray, noise: str, searches: int
) -> np.ndarray:
    """Accuracies by search, replicate and level."""
    rng = np.random.default_rng(0)
    shape = searches, replicates, case.levels + 1
    # The noise is that of the difference of two networks, or of each network.
    same = case.same_images / np.sqrt(2)
    spread = case.own_images if noise == "own images" else same
    accuracy = case.accuracy + spread * rng.normal(size=shape)
    accuracy[..., 1:] += gains
    if noise == "own images":
        return rng.binomial(case.examples, accuracy.clip(0, 1)) / case.examples
    if noise == "AUC-like":
        return accuracy
    lattice = rng.uniform(size=(searches, 1, 1))
    return np.round(case.examples * accuracy + lattice) / case.examples


def tabulate(values: np.ndarray, objective: Objective) -> pd.DataFrame:
    """The table of results of a search."""
    replicate, level = np.indices(values.shape)
    return pd.DataFrame(
        {
            "level": level.ravel(),
            "sparsity": 1 - 0.8 ** level.ravel(),
            "density": 0.8 ** level.ravel(),
            "variant": "ticket",
            "replicate": replicate.ravel(),
            objective.column("early_stop"): values.ravel(),
            objective.column("early_stop", "test"): np.nan,
            "early_stop_step": 100,
            "start_step": 0,
        }
    )


def compare(
    values: np.ndarray, objective: Objective, examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Words and Holm's p-values by search and level, same as `verdict`, in one pass."""
    count = values.shape[1]
    dense, gains = values[..., 0], values[..., 1:] - values[..., :1]
    margin = dense.std(axis=1, ddof=1)
    step = np.array([resolution(each.ravel()) for each in values])
    if objective.is_share:
        step[:] = 1 / examples
        p = dense.mean(axis=1)
        margin = np.maximum(LEAST, np.sqrt(p * (1 - p) / examples))
    spread = np.maximum(gains.std(axis=1, ddof=1), step[:, None] / np.sqrt(6))
    error, mean = spread / np.sqrt(count), gains.mean(axis=1)
    half = error * stats.t.ppf(1 - ERROR, count - 1)
    words = np.select(
        [mean - half > 0, mean - half > -margin[:, None], mean + half < 0],
        [BETTER, MATCHING, WORSE],
        UNDECIDED,
    )
    p = stats.t.sf((mean + margin[:, None]) / error, count - 1)
    return words, np.array([holm(each) for each in p])


def judge(
    case: Case, replicates: int, quality: str, noise: str, searches: int
) -> list[str]:
    """A row of the table for one case, which is simulated many times."""
    objective = Objective("val_auc" if noise == "AUC-like" else "val_accuracy", "max")
    margin = max(0.002, np.sqrt(case.accuracy * (1 - case.accuracy) / case.examples))
    if noise == "AUC-like":
        margin = case.same_images / np.sqrt(2)
    gains = {
        "as good": np.zeros(case.levels),
        "margin worse": np.full(case.levels, -margin),
        "as measured": MEASURED[: case.levels],
    }[quality]
    values = simulate(case, replicates, gains, noise, searches)
    words, p = compare(values, objective, case.examples)
    for search in range(5):
        table = tabulate(values[search], objective)
        judged = verdict(table, objective=objective, examples=case.examples)
        assert judged["verdict"].to_list() == words[search].tolist()
        np.testing.assert_allclose(judged["p"], p[search])
    levels = np.arange(1, case.levels + 1)
    found = np.where(p < ERROR, levels, 0).max(axis=1)
    by_sequence = np.isin(words, [BETTER, MATCHING]).cumprod(axis=1).sum(axis=1)
    counts = [np.mean(words == each) for each in (BETTER, MATCHING, WORSE)]
    return [
        f"{case.name}, {case.levels} levels",
        quality,
        noise,
        str(replicates),
        *(f"{100 * count:.1f} %" for count in counts),
        *(
            cell
            for chosen in (found, by_sequence)
            for cell in (f"{100 * np.mean(chosen > 0):.1f} %", f"{chosen.mean():.1f}")
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=2000)
    searches = parser.parse_args().searches
    rows = [
        judge(case, replicates, quality, noise, searches)
        for case in CASES
        for noise in NOISES
        for quality in ("margin worse", "as good", "as measured")
        for replicates in (2, 3, 5, 10)
        if quality != "as measured" or (case.name, noise) == ("MNIST", "same images")
    ]
    header = ["search", "tickets", "noise", "n", "better", "matching", "worse"]
    header += ["Holm: shown", "level", "sequence: shown", "level"]
    print(text_table(rows, header))


if __name__ == "__main__":
    main()
