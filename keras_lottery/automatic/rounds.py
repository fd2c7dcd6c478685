"""What `auto_compress` has done so far, in a directory."""

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

SETTINGS, LOSSES = "compression.json", "losses.json"
KIND = "round"


class Rounds:
    """The losses of candidates and the models of rounds, each made once.

    A search that asks for the same candidates again, since its seed is the same, gets
    their losses at once: so it goes on where it stopped.

    Args:
        directory: where they are kept.
        settings: what was asked for, as JSON.
        verbose: 0 says nothing.

    Raises:
        ValueError: if it holds what was made by other settings.
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
        """How many candidates were judged, now and before."""
        return len(self._losses)

    def loss(
        self, name: str, counts: Mapping[str, int], judge: Callable[[], float]
    ) -> float:
        """The loss of a candidate, asked for once."""
        key = f"{name}: {list(counts.values())}"
        if key not in self._losses:
            self._losses[key] = judge()
            files.write_sealed(self.directory / LOSSES, self._losses)
        return self._losses[key]

    def model(
        self, name: str, like: keras.Model, make: Callable[[], keras.Model]
    ) -> keras.Model:
        """The model of a round, compiled like another one."""
        path = self.directory / f"{name.replace(' ', '_')}.record"
        try:
            meta, states, _ = files.read_record(path, KIND)
        except FileNotFoundError:
            made = make()
            meta = {"kind": KIND, "architecture": architecture.to_text(made)}
            files.write_record(path, meta, {"state": get_state(made)})
            return made
        model = architecture.from_text(meta["architecture"])
        compile_alike(like, model)
        set_state(model, states["state"])
        return model

    def say(self, line: str) -> None:
        """Tells of what was done."""
        if self.verbose:
            print(line, flush=True)
