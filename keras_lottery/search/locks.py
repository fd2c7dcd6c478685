"""Decides which process writes what when several processes share a directory.

The settings, the initial weights and the table are written under one lock, which is
held for moments. Each replicate has a lock of its own, which the process that trains
it holds. The operating system releases the locks of a process that is killed.
"""

import contextlib
import os
import socket
from collections.abc import Collection, Iterable

from filelock import FileLock, Timeout

from keras_lottery.files import lock
from keras_lottery.search.store import Store


class Locks:
    """The replicates that only this process writes to, until it is closed.

    Args:
        store: the directory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[int, FileLock] = {}

    @property
    def held(self) -> Collection[int]:
        """The replicates that this process has."""
        return self._held.keys()

    def take(self, replicate: int) -> bool:
        """Takes a replicate if it is free; returns whether this process has it now."""
        if replicate in self._held:
            return True
        path = self._store.lock_of(replicate)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._held[replicate] = lock(path)
        except Timeout:
            return False
        holder = f"{socket.gethostname()}, process {os.getpid()}"
        # Written in place: nobody could tell whose a leftover temporary file is.
        self._store.holder_of(replicate).write_text(holder, "utf-8")
        self._store.clean(replicate)
        return True

    def take_all(self, replicates: Iterable[int]) -> None:
        """Takes replicates.

        Raises:
            BlockingIOError: if another process holds one.
        """
        for replicate in replicates:
            if not self.take(replicate):
                raise BlockingIOError(
                    f"Replicate {replicate} in the directory '{self._store.directory}' "
                    f"is being trained by {self.holder(replicate)}. Wait for its end, "
                    "or choose another directory."
                )

    def holder(self, replicate: int) -> str:
        """The process that has a replicate, or had it last."""
        try:
            name = self._store.holder_of(replicate).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            name = ""
        return name or "another process"

    def explain(self, replicates: Iterable[int]) -> str:
        """A sentence that says which process has which replicate."""
        each = (f"replicate {r} is trained by {self.holder(r)}" for r in replicates)
        return "; ".join(each)

    def give_back(self, replicates: Iterable[int]) -> None:
        """Gives back replicates that this process has, for others to take."""
        for replicate in list(replicates):
            with contextlib.suppress(OSError):
                self._store.holder_of(replicate).unlink()
            self._held.pop(replicate).release()

    def close(self) -> None:
        """Gives all replicates back."""
        self.give_back(self._held)
