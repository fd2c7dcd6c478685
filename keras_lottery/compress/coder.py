"""Codes arrays in few bytes: positions as gaps, and symbols by their frequencies.

The entropy coder is the range coder of `constriction`. A table of frequencies takes one
byte for each symbol: the square root of its frequency relative to that of the most
frequent symbol.
"""

import math
from typing import Any, NamedTuple

import numpy as np

MOST_GAP_BITS = 8


class Encoder:
    """Writes arrays of symbols one after another."""

    def __init__(self) -> None:
        from constriction import stream

        self._coder = stream.queue.RangeEncoder()

    def write(self, symbols: np.ndarray, table: np.ndarray) -> None:
        """Writes an array of symbols, which are indices into a table of frequencies."""
        if len(table) > 1 and len(symbols):
            self._coder.encode(symbols.astype(np.int32), _model(table))

    def to_bytes(self) -> bytes:
        """The bytes of everything that was written."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class Decoder:
    """Reads symbols in the order in which they were written."""

    def __init__(self, data: bytes) -> None:
        from constriction import stream

        words = np.frombuffer(data, "<u4").astype(np.uint32)
        self._coder = stream.queue.RangeDecoder(words)

    def read(self, number: int, table: np.ndarray) -> np.ndarray:
        """Reads `number` symbols."""
        if len(table) < 2 or not number:
            return np.zeros(number, np.int32)
        return self._coder.decode(_model(table), number)


def frequencies(symbols: np.ndarray, number: int) -> np.ndarray:
    """The table of frequencies of an array of symbols below `number`, one byte each.

    >>> frequencies(np.array([0, 0, 0, 0, 2]), 3)
    array([255,   0, 128], dtype=uint8)
    """
    counts = np.bincount(symbols, minlength=number)
    return np.ceil(255 * np.sqrt(counts / max(counts.max(), 1))).astype(np.uint8)


def uniform(number: int) -> np.ndarray:
    """The table of frequencies with which all of `number` symbols take equal bits."""
    return np.ones(number, np.uint8)


def _model(table: np.ndarray) -> Any:
    from constriction import stream

    # These are whole numbers, so that no machine rounds them differently.
    return stream.model.Categorical(np.square(table.astype(np.float64)), perfect=False)


class Gaps(NamedTuple):
    """The positions of a mask, as the runs of zeros between them.

    Attributes:
        symbols: the length of each run; `2**bits - 1` stands for that many zeros
            without a position after them.
        bits: the binary logarithm of the number of symbols.
        axis: the order of the scan: -1 for C order; 0 for C order of the array with its
            last axis moved to the front, which scans all inputs of one output in turn.
    """

    symbols: np.ndarray
    bits: int
    axis: int


def to_gaps(mask: np.ndarray, even: bool = False) -> Gaps:
    """The gaps that take the fewest bytes.

    Args:
        mask: an array of booleans.
        even: whether all symbols are to take the same number of bits.

    Reference:
        Han et al. 2015, section 2 (the relative index with padding zeros).

    Example:

    >>> gaps = to_gaps(np.array([False, True, True, False, False, False, True]))
    >>> gaps.symbols, gaps.bits
    (array([1, 0, 0, 1, 1, 1, 0]), 1)
    """
    choices = [
        Gaps(_runs(np.flatnonzero(scan(mask, axis)), bits), bits, axis)
        for axis in ((-1, 0) if mask.ndim > 1 else (-1,))
        for bits in range(1, MOST_GAP_BITS + 1)
    ]
    return min(choices, key=lambda gaps: _cost(gaps, even))


def from_gaps(gaps: Gaps, shape: tuple[int, ...]) -> np.ndarray:
    """The mask with a given shape and these gaps.

    Raises:
        ValueError: if the gaps do not fit the shape.
    """
    limit = 2**gaps.bits - 1
    live = gaps.symbols < limit
    ends = np.cumsum(np.where(live, gaps.symbols.astype(np.int64) + 1, limit))
    size = math.prod(shape)
    if len(ends) and ends[-1] > size:
        raise ValueError(f"positions up to {ends[-1]} in {size} weights")
    flat = np.zeros(size, bool)
    flat[ends[live] - 1] = True
    if gaps.axis == -1:
        return flat.reshape(shape)
    return np.moveaxis(flat.reshape(shape[-1:] + shape[:-1]), 0, -1)


def scan(array: np.ndarray, axis: int) -> np.ndarray:
    """A view of an array in the order of the scan."""
    return array if axis == -1 else np.moveaxis(array, -1, 0)


def _runs(positions: np.ndarray, bits: int) -> np.ndarray:
    limit = 2**bits - 1
    skipped = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(skipped // limit + 1)
    symbols = np.full(ends[-1] if len(ends) else 0, limit)
    symbols[ends - 1] = skipped % limit
    return symbols


def _cost(gaps: Gaps, even: bool) -> float:
    """The number of bits that the symbols and their table take."""
    number = 2**gaps.bits
    if even or not len(gaps.symbols):
        return gaps.bits * len(gaps.symbols)
    counts = np.bincount(gaps.symbols, minlength=number)
    used = counts[counts > 0]
    return float(used @ np.log2(len(gaps.symbols) / used)) + 8 * number
