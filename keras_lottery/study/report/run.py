"""What a report tells of a run, read from its directory without building its model."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery.files import CorruptedFileError, read_json, read_meta, read_record
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.search import results
from keras_lottery.search.settings import read_settings
from keras_lottery.search.store import Store, Unit
from keras_lottery.search.trainings import read_training, row

if TYPE_CHECKING:
    import pandas as pd

NONE = "\N{EN DASH}"
Curve = Mapping[str, Sequence[float]]
# Layers that hand on pixels as they are, or one by one.
_OF_PIXELS = {
    *("InputLayer", "Flatten", "Rescaling", "Normalization", "Dropout"),
    *("GaussianNoise", "GaussianDropout", "Activation", "Identity"),
}


@dataclass(frozen=True)
class Run:
    """A search as it is stored, finished or not.

    Attributes:
        store: its directory.
        settings: what it was asked for.
        results: one row a training.
        verdict: one row a level; empty if there are no tickets yet.
        curves: validation loss and accuracy by step, of each training.
        replicate: the one whose masks and weights are drawn.
        layers: shares of weights left, by level and weight.
        first: the first layer's masks, by level.
        missing: how many trainings are still to be done.
        damaged: what could not be read.
        exports: what was measured on the exported files.
    """

    store: Store
    settings: dict[str, Any]
    results: "pd.DataFrame"
    verdict: "pd.DataFrame"
    curves: dict[Unit, Curve]
    replicate: int
    layers: dict[int, dict[str, float]]
    first: dict[int, np.ndarray]
    missing: int
    damaged: list[str]
    exports: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.store.directory.resolve().name

    @property
    def variants(self) -> list[str]:
        """The ticket and its controls."""
        found = self.results["variant"].unique()
        return sorted(found, key=lambda name: (name != "ticket", name))

    @property
    def on(self) -> str:
        """The data that accuracies are of: test, or validation without any."""
        has_test = self.results["early_stop_test_accuracy"].notna().any()
        return "test" if has_test else "validation"

    @property
    def accuracy(self) -> str:
        """The column of these accuracies, at the early stop."""
        part = "test" if self.on == "test" else "val"
        return f"early_stop_{part}_accuracy"

    @property
    def winner(self) -> int | None:
        """The level of the sparsest winning ticket, by `best_ticket`'s rule.

        It is chosen on validation data, and without a tolerance.
        """
        if not len(self.verdict):
            return None
        verdict = results.verdict(self.results, on="validation")
        levels = verdict.loc[verdict["winning"], "level"]
        return int(levels.max()) if len(levels) else None

    @property
    def shown(self) -> int:
        """The level that is looked at closely: the winner's, or the last."""
        winner = self.winner
        if winner is not None and winner in self.layers:
            return winner
        return max(self.layers)

    def density(self, level: int) -> float:
        """The share of weights that a level has left."""
        rows = self.results[self.results["level"] == level]
        return float(rows["density"].mean())

    def weights(self, level: int) -> tuple[Masks, State, State]:
        """A ticket's masks, the weights before any training, and its trained weights.

        Raises:
            CorruptedFileError: if a file is damaged.
        """
        unit = Unit(self.replicate, level, "ticket")
        training, _, masks = read_training(self.store.training(unit))
        initial = read_record(self.store.initial(self.replicate), "initial")[1]
        assert masks is not None
        return masks, initial["weights"], training.final

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels, if the first masked layer sees pixels."""
        # Of arrays: "(1077, 8, 8, 1) float32 …"; of data sets: "(TensorSpec(shape=…".
        found = re.search(r"\((?:None|\d+)((?:, \d+)+)\)", str(self.settings["train"]))
        if found is None or not self.layers:
            return None
        shape = tuple(map(int, found[1].split(", ")[1:]))
        height, width, channels = (*shape, 1) if len(shape) == 2 else (*shape, 0, 0)[:3]
        if len(shape) > 3 or min(height, width) < 2 or channels not in range(1, 5):
            return None
        first = next(iter(self.layers[min(self.layers)])).rpartition("/")[0]
        for path, layer in self.settings["model"]["layers"].items():
            if path == first:
                return height, width, channels
            if layer["class"] not in _OF_PIXELS:
                return None
        return None


def percent(share: float) -> str:
    """A share as a percentage.

    >>> percent(0.9625), percent(float("nan"))
    ('96.25 %', '–')
    """
    return NONE if np.isnan(share) else f"{100 * share:.2f} %"


def read_run(directory: str | os.PathLike) -> Run:
    """Reads a run.

    Raises:
        FileNotFoundError: if there is none in the directory.
        CorruptedFileError: if its settings are damaged. Other damaged files are left
            out, and named.
    """
    store = Store(directory)
    stored = read_json(store.settings) if store.settings.is_file() else {}
    if not {"schedule", "replicates", "controls"} <= stored.keys():
        raise FileNotFoundError(
            f"Expected the directory of a search. Received: '{directory}', in which "
            "there is no settings.json of one. Name the directory that `keras-lottery "
            "find --directory` or `LotteryTicketSearch(directory=…)` wrote."
        )
    settings = read_settings(store)
    damaged: list[str] = []
    metas = {}
    units = [unit for unit in store.units() if unit.variant != "trunk"]
    for unit in units:
        try:
            metas[unit] = read_meta(store.training(unit), "training")
        except CorruptedFileError as error:
            damaged.append(str(error))
    tickets = [unit for unit in metas if unit.variant == "ticket"]
    replicate = min((unit.replicate for unit in tickets), default=0)
    layers: dict[int, dict[str, float]] = {}
    first: dict[int, np.ndarray] = {}
    for unit in tickets:
        if unit.replicate != replicate:
            continue
        try:
            masks = read_training(store.training(unit))[2]
        except CorruptedFileError as error:
            damaged.append(str(error))
            continue
        assert masks is not None
        layers[unit.level] = {name: float(m.mean()) for name, m in masks.items()}
        first[unit.level] = next(iter(masks.values()))
    table = results.tabulate(map(row, metas.values()))
    exports = store.directory / "reports.json"
    return Run(
        store,
        settings,
        table,
        results.verdict(table) if tickets else table.iloc[:0],
        {unit: meta["curve"] for unit, meta in metas.items()},
        replicate,
        layers,
        first,
        len(_expected(settings) - metas.keys()),
        damaged,
        read_json(exports) if exports.is_file() else None,
    )


def _expected(settings: Mapping[str, Any]) -> set[Unit]:
    """The trainings that are reported once a search is finished."""
    units = set()
    for replicate in range(settings["replicates"]):
        units.add(Unit(replicate, 0, "ticket"))
        for level in settings["report_levels"]:
            units.add(Unit(replicate, level, "ticket"))
            for name, given in settings["controls"].items():
                # Of a function of the user's own, [its name, trials].
                trials = given if isinstance(given, int) else given[1]
                units |= {Unit(replicate, level, name, t) for t in range(trials)}
    return units
