"""Sends tasks to workers: a large array is sent once, however many tasks use it.

The controls of a level share weights, masks and scores, and the tickets of all levels
often start from the same weights. A task is pickled without its large arrays, which are
put aside once, for as long as this process holds them.
"""

import io
import pickle
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import numpy as np

LARGE = 2**15
"""Bytes from which on an array is put aside."""


class Sharing:
    """Pickles objects, and puts their large arrays aside.

    Args:
        put: puts an array aside, and returns a handle by which workers get it.
        drop: is called with the handle when the array is no longer held.
    """

    def __init__(
        self,
        put: Callable[[np.ndarray], Any],
        drop: Callable[[Any], None] = lambda handle: None,
    ) -> None:
        self._put = put
        self._drop = drop
        # By the array's address, which is valid for as long as it lives.
        self._handles: dict[int, Any] = {}

    def __len__(self) -> int:
        """How many arrays are put aside."""
        return len(self._handles)

    def dumps(self, value: Any) -> tuple[bytes, list[Any]]:
        """The pickled object, and the handles of its large arrays."""
        handles: list[Any] = []
        file = io.BytesIO()
        _Pickler(file, self._handle, handles).dump(value)
        return file.getvalue(), handles

    def _handle(self, array: np.ndarray) -> Any:
        key = id(array)
        if key not in self._handles:
            self._handles[key] = self._put(array)
            weakref.finalize(array, self._forget, key).atexit = False
        return self._handles[key]

    def _forget(self, key: int) -> None:
        self._drop(self._handles.pop(key))


class _Pickler(cloudpickle.Pickler):
    def __init__(
        self,
        file: io.BytesIO,
        handle: Callable[[np.ndarray], Any],
        handles: list[Any],
    ) -> None:
        super().__init__(file)
        self._handle = handle
        self._handles = handles

    def persistent_id(self, value: Any) -> int | None:
        if type(value) is not np.ndarray or value.nbytes < LARGE:
            return None
        if value.dtype.isbuiltin != 1 or value.dtype.hasobject:
            return None  # Files of arrays cannot hold others, such as bfloat16.
        self._handles.append(self._handle(value))
        return len(self._handles) - 1


def loads(pickled: bytes, arrays: Sequence[np.ndarray]) -> Any:
    """Unpickles an object in a worker.

    Args:
        pickled: the bytes that `Sharing.dumps` returned.
        arrays: the arrays of its handles.
    """
    unpickler = pickle.Unpickler(io.BytesIO(pickled))
    unpickler.persistent_load = arrays.__getitem__  # type: ignore[method-assign]
    return unpickler.load()
