"""How often is the verdict wrong, and how often does it find a ticket that matches?

    python benchmarks/verdict.py [--searches 2000]

Simulates tables of searches whose tickets have a known quality, lets the library judge
them, and prints a row for each case: how many of the levels it calls better, matching
or worse; how often the search names a level as shown to match (Holm's correction), and
which on average; and the same by a fixed sequence, from dense to sparse up to the first
level that does not match, which was not chosen.

Tickets are exactly as good as the dense network, exactly worse by the margin, or as
good as those of docs/mnist.csv. Accuracies are noisy in one of two ways: with
`own images`, each network is validated on images of its own, which is too noisy; with
`same images` differences spread as measured, 0.13 percentage points (MNIST) and 0.4
(digits), and are rounded to an image. `AUC-like` is a metric that is no accuracy, whose
margin is the standard deviation of the dense networks.
"""

import argparse
import os
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import numpy as np
import pandas as pd

from keras_lottery.engines.objective import Objective
from keras_lottery.search.margin import LEAST
from keras_lottery.search.paired import (
    ERROR,
    holm,
    interval,
    p_value,
    resolution,
    word,
)
from keras_lottery.search.results import verdict
from keras_lottery.tables import text_table

# Ticket less dense network on the validation data, of docs/mnist.csv, level by level.
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
    case: Case, replicates: int, gains: np.ndarray, noise: str, rng: np.random.Generator
) -> np.ndarray:
    """Accuracies by replicate and level of one search."""
    shape = replicates, case.levels + 1
    # Of a difference of two networks, or of each.
    same = case.same_images / np.sqrt(2)
    spread = case.own_images if noise == "own images" else same
    accuracy = case.accuracy + spread * rng.normal(size=shape)
    accuracy[:, 1:] += gains
    if noise == "own images":
        return rng.binomial(case.examples, accuracy.clip(0, 1)) / case.examples
    if noise == "AUC-like":
        return accuracy
    return np.round(case.examples * accuracy + rng.uniform()) / case.examples


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
) -> tuple[list[str], np.ndarray]:
    """Word and p-value of each level: `kl.results.verdict`, many times as fast."""
    dense, step = values[:, 0], resolution(values.ravel())
    margin = dense.std(ddof=1)
    if objective.is_share:
        margin = max(LEAST, np.sqrt(dense.mean() * (1 - dense.mean()) / examples))
    gains = (values[:, 1:] - values[:, :1]).T
    words = [word(*interval(each, step)[1:], margin) for each in gains]
    return words, holm(np.array([p_value(each, margin, step) for each in gains]))


def judge(
    case: Case, replicates: int, quality: str, noise: str, searches: int
) -> list[str]:
    """A row of the table: one case, simulated so many times."""
    rng = np.random.default_rng(0)
    objective = Objective("val_auc" if noise == "AUC-like" else "val_accuracy", "max")
    margin = max(0.002, np.sqrt(case.accuracy * (1 - case.accuracy) / case.examples))
    if noise == "AUC-like":
        margin = case.same_images / np.sqrt(2)
    gains = {
        "as good": np.zeros(case.levels),
        "margin worse": np.full(case.levels, -margin),
        "as measured": MEASURED[: case.levels],
    }[quality]
    words, found, by_sequence = [], [], []
    for search in range(searches):
        values = simulate(case, replicates, gains, noise, rng)
        said, p = compare(values, objective, case.examples)
        if search < 10:
            table = tabulate(values, objective)
            judged = verdict(table, objective=objective, examples=case.examples)
            assert judged["verdict"].to_list() == said
            np.testing.assert_allclose(judged["p"], p)
        words.append(said)
        found.append(max(np.flatnonzero(p < ERROR) + 1, default=0))
        matches = np.isin(said, ["better", "matching"])
        by_sequence.append(int(matches.cumprod().sum()))
    counts = [np.mean(np.array(words) == w) for w in ("better", "matching", "worse")]
    return [
        f"{case.name}, {case.levels} levels",
        quality,
        noise,
        str(replicates),
        *(f"{100 * count:.1f} %" for count in counts),
        *(
            cell
            for levels in (np.array(found), np.array(by_sequence))
            for cell in (f"{100 * np.mean(levels > 0):.1f} %", f"{levels.mean():.1f}")
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
