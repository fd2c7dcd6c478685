"""The progress of `auto_compress`, stored in a directory."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_lottery import files
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import get_state, set_state
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.search.settings import differences

SETTINGS, LOSSES, SHARE = "compression.json", "losses.json", "share.json"
KIND = "round"


class Rounds:
    """The losses of candidates and the models of rounds, each computed once.

    A search with the same seed evaluates the same candidates again and gets their
    stored losses at once. It therefore continues where it stopped.

    Args:
        directory: the directory where they are stored.
        settings: the settings of the search, as JSON.
        verbose: 0 prints nothing.

    Raises:
        ValueError: if the directory holds the results of other settings.
        CorruptedFileError: if a file is damaged.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any], verbose: int
    ) -> None:
        self.directory = directory
        self.verbose = verbose
        here = json.loads(json.dumps(settings))
        try:
            there = files.read_sealed(directory / SETTINGS)
        except FileNotFoundError:
            files.write_sealed(directory / SETTINGS, here)
            there = here
        if other := list(differences(there, here)):
            raise ValueError(
                f"'{directory}' holds a compression with other settings: "
                + "; ".join(f"{n}: {a!r} there, {b!r} here" for n, a, b in other[:5])
                + ". Choose another directory."
            )
        self._losses: dict[str, float] = {}
        if (directory / LOSSES).exists():
            self._losses = files.read_sealed(directory / LOSSES)

    @property
    def evaluations(self) -> int:
        """The number of candidates that were evaluated, now and in earlier runs."""
        return len(self._losses)

    def loss(
        self, name: str, counts: Mapping[str, int], judge: Callable[[], float]
    ) -> float:
        """Returns the loss of a candidate, which is computed once."""
        key = f"{name}: {list(counts.values())}"
        if key not in self._losses:
            self._losses[key] = judge()
            files.write_sealed(self.directory / LOSSES, self._losses)
        return self._losses[key]

    def share(self, find: Callable[[], float]) -> float:
        """Returns the share that timing found, stored because timings differ."""
        try:
            return files.read_sealed(self.directory / SHARE)["multiply_adds"]
        except FileNotFoundError:
            found = find()
            files.write_sealed(self.directory / SHARE, {"multiply_adds": found})
            return found

    def model(
        self,
        name: str,
        counts: Mapping[str, int],
        like: keras.Model,
        make: Callable[[], keras.Model],
    ) -> keras.Model:
        """Returns the model of a round, compiled in the same way as a given model.

        Raises:
            ValueError: if the stored model has other numbers of filters.
        """
        path = self.directory / f"{name.replace(' ', '_')}.record"
        try:
            meta, states, _ = files.read_record(path, KIND)
        except FileNotFoundError:
            made = make()
            meta = {
                "kind": KIND,
                "counts": dict(counts),
                "architecture": architecture.to_text(made),
            }
            files.write_record(path, meta, {"state": get_state(made)})
            return made
        if meta["counts"] != dict(counts):
            raise ValueError(
                f"'{path}' holds a model with {meta['counts']} filters, but the search "
                f"now finds {dict(counts)}. Choose another directory."
            )
        model = architecture.from_text(meta["architecture"])
        compile_alike(like, model)
        set_state(model, states["state"])
        return model

    def say(self, line: str) -> None:
        """Prints a line about the progress."""
        if self.verbose:
            print(line, flush=True)
