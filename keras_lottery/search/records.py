"""What trainings gave, on disk: each state is stored once, and referred to elsewhere.

A ticket starts from the initial weights, from the rewind point, or from where another
training ended: its start is in a file already, and its own file says in which.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_lottery.files import digest, read_record, write_record
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.search.store import Store

Record = tuple[dict[str, Any], dict[str, dict[str, np.ndarray]], Masks | None]
"""Meta, states by name, and masks."""


class Records:
    """The records of a store, while more are written.

    Args:
        store: the directory.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        # By the digest of each state: its file, the file's kind, its name there.
        self._places: dict[str, tuple[str, str, str]] = {}

    def write(
        self,
        path: Path,
        meta: Mapping[str, Any],
        states: Mapping[str, State],
        masks: Masks | None = None,
    ) -> None:
        """Writes a record, without those states that are in another one.

        Args:
            path: a file in the store.
            meta, states, masks: see `files.write_record`.
        """
        places = self._note(path, meta["kind"], states)
        here = self._name(path), meta["kind"]
        elsewhere = {n: place for n, place in places.items() if place != (*here, n)}
        own = {name: states[name] for name in states if name not in elsewhere}
        write_record(path, {**meta, "elsewhere": elsewhere}, own, masks)

    def read(self, path: Path, kind: str, *names: str) -> Record:
        """Same as `read`; what is written from then on may refer to the states."""
        meta, states, masks = read(self.store, path, kind, *names)
        own = {n: state for n, state in states.items() if n not in meta["elsewhere"]}
        self._note(path, kind, own)
        return meta, states, masks

    def _note(
        self, path: Path, kind: str, states: Mapping[str, State]
    ) -> dict[str, tuple[str, str, str]]:
        """Where states are: in this file, unless they are known from another one."""
        return {
            name: self._places.setdefault(digest(state), (self._name(path), kind, name))
            for name, state in states.items()
        }

    def _name(self, path: Path) -> str:
        return path.relative_to(self.store.directory).as_posix()


def read(store: Store, path: Path, kind: str, *names: str) -> Record:
    """Reads a record, with states that it refers to.

    Args:
        store: the directory.
        path: a file in it.
        kind: see `files.read_record`.
        names: the states that are wanted wherever they are stored; others are there if
            they are in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if it is damaged, or one that it refers to.
    """
    meta, states, masks = read_record(path, kind)
    for name in names:
        if place := meta["elsewhere"].get(name):
            file, kind, there = place
            states[name] = read_record(store.directory / file, kind)[1][there]
    return meta, states, masks
