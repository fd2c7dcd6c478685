"""Encodes the variables of a masked model as bytes, and decodes them.

The bytes are a magic word, a checksum of everything that follows, and three sections,
of which the first two are preceded by their lengths: deflated JSON with the
architecture and the form of each variable; the deflated numbers (values, tables,
biases); and the coded stream. Nothing is unpickled, and the size of each array is
checked before it is allocated.
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from keras_lottery.compress import coder
from keras_lottery.in_fit.callbacks.sharing import MOST_BITS
from keras_lottery.masks import Masks

Stage = Literal["dense", "pruned", "quantized", "coded"]
"""The stages of compression; files hold the last one, `"coded"`."""

_MAGIC = b"keras_lottery compressed 1\n"
_LENGTH = struct.Struct("<I")
_META_LIMIT = 2**26
# The largest number of bytes to which deflate can expand one byte.
_EXPANSION = 1032


def encode(
    text: str,
    state: Mapping[str, np.ndarray],
    masks: Masks,
    stage: Stage = "coded",
) -> bytes:
    """Encodes an architecture, its variables and masks as bytes.

    Args:
        text: the architecture.
        state: every variable by name; pruned weights are zero.
        masks: the masks of some of the variables.
        stage: `"dense"` leaves out the masks; `"pruned"` stores live weights, and gaps
            with a fixed number of bits; `"quantized"` stores the numbers of shared
            values, also with a fixed number of bits; `"coded"` is the smallest.
    """
    numbers: list[bytes] = []
    stream = coder.Encoder()
    variables = []
    for name, array in state.items():
        form = None
        if name in masks and stage != "dense":
            form = _encode_masked(array, masks[name], stage, numbers, stream)
        else:
            _encode_plain(array, numbers)
        variables.append([name, array.dtype.name, array.shape, form])
    together = b"".join(numbers)
    meta = {
        "model": text,
        "numbers": len(together),
        "decoded": _checksum(state, masks),
        "variables": variables,
    }
    level = 9 if stage == "coded" else 0
    sections = b""
    for section in (json.dumps(meta, separators=(",", ":")).encode(), together):
        packed = zlib.compress(section, level)
        sections += _LENGTH.pack(len(packed)) + packed
    content = sections + stream.to_bytes()
    return _MAGIC + hashlib.sha256(content).digest() + content


def decode(data: bytes, most: int) -> tuple[str, dict[str, np.ndarray], Masks]:
    """Decodes the architecture, variables and masks.

    Args:
        data: bytes that `encode` returned.
        most: how many bytes the variables may take.

    Raises:
        ValueError, or any error of zlib, json or NumPy: if the data are damaged or
            inconsistent.
    """
    start = len(_MAGIC) + hashlib.sha256().digest_size
    content = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(content).digest():
        raise ValueError("it is not such a file, or its checksum differs")
    packed_meta, content = _section(content)
    packed_numbers, content = _section(content)
    meta = json.loads(_inflate(packed_meta, _META_LIMIT))
    if not 0 <= meta["numbers"] <= _EXPANSION * len(packed_numbers):
        raise ValueError(f"{len(packed_numbers)} bytes cannot hold {meta['numbers']}")
    numbers = _Numbers(_inflate(packed_numbers, meta["numbers"]))
    stream = coder.Decoder(content)
    forms = [
        (name, _dtype(dtype), tuple(_count(size) for size in shape), form)
        for name, dtype, shape, form in meta["variables"]
    ]
    total = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape, _ in forms)
    if total > most:
        raise ValueError(f"it claims to hold {total} bytes, more than max_bytes={most}")
    state, masks = {}, {}
    for name, dtype, shape, form in forms:
        if form is None:
            state[name] = numbers.read(dtype, math.prod(shape)).reshape(shape)
        else:
            state[name], masks[name] = _decode_masked(
                dtype, shape, form, numbers, stream
            )
    numbers.check_end()
    if meta["decoded"] != _checksum(state, Masks(masks)):
        raise ValueError("what was decoded is not what was encoded")
    return meta["model"], state, Masks(masks)


def shared_values(live: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The distinct values and each weight's index among them, if that saves bytes."""
    # Values are compared by their bits, so that every zero and every NaN is restored.
    values, labels = np.unique(live.view(f"u{live.itemsize}"), return_inverse=True)
    number = len(values)
    if not 0 < number <= 2**MOST_BITS:
        return None
    shared = number * (live.itemsize + 1) + len(live) * math.log2(number) / 8
    return (values.view(live.dtype), labels) if shared < live.nbytes else None


def weight_bytes(live: np.ndarray) -> int:
    """The bytes of live weights with a whole number of bits each, as papers count.

    >>> weight_bytes(np.array([1.0, -1.0, 2.0] * 100, "float32"))  # two bits each
    75
    """
    shared = shared_values(live)
    if shared is None:
        return live.nbytes
    bits = max(1, math.ceil(math.log2(len(shared[0]))))
    return math.ceil(len(live) * bits / 8)


def position_bytes(mask: np.ndarray) -> int:
    """The bytes of a mask's positions, as gaps with a fixed number of bits.

    >>> position_bytes(np.arange(80) % 8 == 0)  # ten gaps of four bits
    5
    """
    gaps = coder.to_gaps(mask, even=True)
    return math.ceil(gaps.bits * len(gaps.symbols) / 8)


def _encode_plain(array: np.ndarray, numbers: list[bytes]) -> None:
    # Bytes of the same significance come together, since exponents resemble each other.
    flat = np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, array.itemsize)
    numbers.append(flat.T.tobytes())


def _encode_masked(
    array: np.ndarray,
    mask: np.ndarray,
    stage: Stage,
    numbers: list[bytes],
    stream: coder.Encoder,
) -> list[Any]:
    even = stage != "coded"
    gaps = coder.to_gaps(mask, even)
    live = coder.scan(array, gaps.axis)[coder.scan(mask, gaps.axis)]
    _encode_symbols(gaps.symbols, 2**gaps.bits, even, numbers, stream)
    shared = None if stage == "pruned" else shared_values(live)
    if shared is None:
        _encode_plain(live, numbers)
    else:
        values, labels = shared
        _encode_plain(values, numbers)
        _encode_symbols(labels, len(values), even, numbers, stream)
    number = 0 if shared is None else len(shared[0])
    return [even, gaps.bits, gaps.axis, len(gaps.symbols), len(live), number]


def _decode_masked(
    dtype: np.dtype,
    shape: tuple[int, ...],
    form: list[Any],
    numbers: "_Numbers",
    stream: coder.Decoder,
) -> tuple[np.ndarray, np.ndarray]:
    even = bool(form[0])
    bits, axis, runs, live, number = map(int, form[1:])
    size = math.prod(shape)
    if not (1 <= bits <= coder.MOST_GAP_BITS and axis in (-1, 0)):
        raise ValueError(f"gaps of {bits} bits along axis {axis}")
    if not (0 <= live <= runs <= size and 0 <= number <= 2**MOST_BITS):
        raise ValueError(f"{runs} gaps, {live} weights and {number} values in {size}")
    symbols = _decode_symbols(runs, 2**bits, even, numbers, stream)
    mask = coder.from_gaps(coder.Gaps(symbols, bits, axis), shape)
    values = numbers.read(dtype, number or live)
    if number:
        values = values[_decode_symbols(live, number, even, numbers, stream)]
    array = np.zeros(shape, dtype)
    # A view in the order of the scan; writing to it fills the array.
    coder.scan(array, axis)[coder.scan(mask, axis)] = values
    return array, mask


def _encode_symbols(
    symbols: np.ndarray,
    number: int,
    even: bool,
    numbers: list[bytes],
    stream: coder.Encoder,
) -> None:
    table = coder.uniform(number) if even else coder.frequencies(symbols, number)
    if not even:
        numbers.append(table.tobytes())
    stream.write(symbols, table)


def _decode_symbols(
    count: int, number: int, even: bool, numbers: "_Numbers", stream: coder.Decoder
) -> np.ndarray:
    table = coder.uniform(number) if even else numbers.read(np.dtype("uint8"), number)
    if count and not table.any():
        raise ValueError("a table in which no symbol occurs")
    return stream.read(count, table)


class _Numbers:
    """Reads arrays from a section, never beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def read(self, dtype: np.dtype, number: int) -> np.ndarray:
        end = self._place + number * dtype.itemsize
        if end > len(self._data):
            raise ValueError(f"the numbers end before {number} of {dtype}")
        flat = np.frombuffer(self._data[self._place : end], np.uint8)
        self._place = end
        planes = flat.reshape(dtype.itemsize, number)
        return np.frombuffer(planes.T.tobytes(), dtype).copy()

    def check_end(self) -> None:
        if self._place != len(self._data):
            raise ValueError(f"{len(self._data) - self._place} bytes are left over")


def _section(content: bytes) -> tuple[bytes, bytes]:
    """Splits off a section that is preceded by its length; returns it and the rest."""
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    if end > len(content):
        raise ValueError(f"a section of {length} bytes ends after the file")
    return content[_LENGTH.size : end], content[end:]


def _inflate(packed: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(packed, most + 1)
    if len(data) > most or not inflater.eof:
        raise ValueError(f"a section holds more than {most} bytes")
    return data


def _dtype(name: str) -> np.dtype:
    dtype = np.dtype(name)
    if dtype.hasobject or not 1 <= dtype.itemsize <= 8:
        raise ValueError(f"variables of {dtype}")
    return dtype


def _count(size: Any) -> int:
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"a shape with {size!r}")
    return size


def _checksum(state: Mapping[str, np.ndarray], masks: Masks) -> int:
    """A checksum of the decoded content, which detects other versions of the coder."""
    check = 0
    for array in [*state.values(), *masks.values()]:
        check = zlib.crc32(array.tobytes(), check)
    return check
