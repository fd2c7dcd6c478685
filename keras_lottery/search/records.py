"""The results of trainings on disk: each state of a replicate is stored only once.

A ticket starts from the initial weights, from the rewind point, or from where another
training ended. A file already holds these weights, and the ticket's own file refers
to it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_lottery.files import (
    REMEDY,
    CorruptedFileError,
    digest,
    read_meta,
    read_record,
    write_record,
)
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.search import stored
from keras_lottery.search.store import Store, TrainingId

Record = tuple[dict[str, Any], dict[str, State], Masks | None]
"""Meta, states by name, and masks."""


class Reader:
    """Reads the records of a store.

    Args:
        store: the directory.

    All methods raise FileNotFoundError if there is no such file, and CorruptedFileError
    if a file is damaged, is not the record that its name says, or refers to such a
    file.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, path: Path, kind: str, *names: str) -> Record:
        """Reads a record and the states that it refers to.

        Args:
            path: a file in the store.
            kind: see `files.read_record`.
            names: the states to read from wherever they are stored. Other states are
                returned only if they are in the file itself.
        """
        meta, found, masks = read_record(path, kind)
        states: dict[str, State] = {**found}
        stored.check(path, meta, stored.RECORDS[kind])
        for name in names:
            if place := meta["elsewhere"].get(name):
                states[name] = self._referred(path, place)
            elif name not in states:
                raise _refusal(path, f"it holds no {name}")
        return meta, states, masks

    def training(self, which: TrainingId, *names: str) -> Record:
        """The result of a training; `names` is the same as in `read`."""
        path = self.store.training(which)
        meta, states, masks = self.read(path, "training", *names)
        _check_place(path, meta, which)
        for name, mask in (masks or {}).items():
            for state in states.values():
                if name not in state or state[name].shape != mask.shape:
                    raise _refusal(path, f"its mask {name} is that of no weight")
        return meta, states, masks

    def training_meta(self, which: TrainingId) -> dict[str, Any]:
        """The metadata of a training, without its weights and masks."""
        path = self.store.training(which)
        meta = read_meta(path, "training")
        stored.check(path, meta, stored.Training)
        _check_place(path, meta, which)
        return meta

    def initial(self, replicate: int) -> State:
        """The weights that a replicate started from."""
        return self._initial(replicate)[1]["weights"]

    def _initial(self, replicate: int) -> Record:
        path = self.store.initial(replicate)
        meta, states, masks = self.read(path, "initial", "weights")
        if meta["replicate"] != replicate:
            raise _refusal(path, f"it is that of replicate {meta['replicate']}")
        return meta, states, masks

    def _referred(self, path: Path, place: tuple[str, str, str]) -> State:
        """A state that is stored in another record."""
        file, kind, name = place
        own = "initial" if Path(file).stem == "initial" else "training"
        if kind != own or not self.store.is_record(file):
            raise _refusal(path, f"it refers to {file!r}, which is none of its own")
        states = read_record(self.store.directory / file, kind)[1]
        if name not in states:
            raise _refusal(path, f"it refers to {name!r} of {file}, which has none")
        return states[name]


class Records(Reader):
    """The records of a store that more records are written to.

    Args:
        store: the directory.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        # For each replicate and digest of a state: its file, the file's kind, and its
        # name there. A replicate never refers to the folder of another one, which
        # another process may write, or which may be moved.
        self._places: dict[tuple[str, str], tuple[str, str, str]] = {}

    def write(
        self,
        path: Path,
        meta: Mapping[str, Any],
        states: Mapping[str, State],
        masks: Masks | None = None,
    ) -> None:
        """Writes a record, without the states that another record holds already.

        Args:
            path: a file in the store.
            meta, states, masks: see `files.write_record`.
        """
        places = self._note(path, meta["kind"], states)
        here = self._name(path), meta["kind"]
        elsewhere = {n: place for n, place in places.items() if place != (*here, n)}
        own = {name: states[name] for name in states if name not in elsewhere}
        write_record(path, {**meta, "elsewhere": elsewhere}, own, masks)

    def training(self, which: TrainingId, *names: str) -> Record:
        """Same as `Reader.training`; records written later may refer to its states."""
        return self._noted(self.store.training(which), super().training(which, *names))

    def _initial(self, replicate: int) -> Record:
        return self._noted(self.store.initial(replicate), super()._initial(replicate))

    def _noted(self, path: Path, record: Record) -> Record:
        # A refused record is left out: its file is about to be written again.
        meta, states, _ = record
        own = {n: state for n, state in states.items() if n not in meta["elsewhere"]}
        self._note(path, meta["kind"], own)
        return record

    def _note(
        self, path: Path, kind: str, states: Mapping[str, State]
    ) -> dict[str, tuple[str, str, str]]:
        """Notes that this file has these states, unless another one is known to."""
        file = self._name(path)
        replicate = Path(file).parts[0]
        return {
            name: self._places.setdefault(
                (replicate, digest(state)), (file, kind, name)
            )
            for name, state in states.items()
        }

    def _name(self, path: Path) -> str:
        return path.relative_to(self.store.directory).as_posix()


def _check_place(path: Path, meta: Mapping[str, Any], which: TrainingId) -> None:
    found = TrainingId(*(meta[name] for name in TrainingId._fields))
    if found != which:
        raise _refusal(path, f"it was moved there: it is that of {found}")


def _refusal(path: Path, why: str) -> CorruptedFileError:
    return CorruptedFileError(
        f"'{path}' is damaged or was not written by keras_lottery: {why}. {REMEDY}"
    )
