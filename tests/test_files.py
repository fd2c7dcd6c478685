"""Files are written whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import threading
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from keras_lottery import files
from keras_lottery.files import (
    CorruptedFileError,
    read_json,
    read_meta,
    read_record,
    write_atomically,
    write_json,
    write_record,
)
from keras_lottery.masks import Masks

pytestmark = pytest.mark.once


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_then_full(file):
    file.write(b"half of the new one")
    full()


def interrupted(file):
    file.write(b"half of the new one")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("write", "error"), [(half_then_full, OSError), (interrupted, KeyboardInterrupt)]
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, write, error, old
):
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)
    with pytest.raises(error):
        write_atomically(path, write)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {"file": old} if old else {}
    )


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_end(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, lambda file: file.write(b"new"))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_folders_are_made_and_old_files_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for text in (b"old", b"new"):
        write_atomically(path, lambda file, text=text: file.write(text))
        assert [p.read_bytes() for p in path.parent.iterdir()] == [text]


def test_writers_at_the_same_time_do_not_meet(tmp_path):
    """Each writes half, waits for the others to have done so, and goes on."""
    barrier = threading.Barrier(4, timeout=20)

    def write(letter):
        def halves(file):
            file.write(letter * 1000)
            file.flush()
            barrier.wait()
            file.write(letter * 1000)

        write_atomically(tmp_path / "file", halves)

    threads = [
        threading.Thread(target=write, args=(c,)) for c in (b"a", b"b", b"c", b"d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() in [letter * 2000 for letter in (b"a", b"b", b"c", b"d")]


def test_json(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, None, "é"]})
    assert read_json(path) == {"a": [1, None, "é"]}
    for damage in (b"", path.read_bytes()[:-3], b"\xff"):
        path.write_bytes(damage)
        with pytest.raises(CorruptedFileError, match=r"file\.json"):
            read_json(path)


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, object())
    assert read_json(path) == 1


def test_a_record_keeps_groups_apart(tmp_path):
    states = {
        "initial": {"a/kernel": np.zeros(2), "masks:b": np.ones(1)},
        "final": {"a/kernel": np.ones(2)},
        "empty": {},
    }
    masks = Masks({"a/kernel": np.arange(21).reshape(3, 7) % 2})
    meta = {"kind": "test", "number": 0.1, "nothing": None}
    write_record(tmp_path / "record", meta, states, masks)
    found, groups, mask = read_record(tmp_path / "record", "test")
    assert (found, mask) == (meta, masks)
    assert list(groups) == list(states)
    for group, state in states.items():
        assert list(groups[group]) == list(state)
        for name, array in state.items():
            np.testing.assert_array_equal(groups[group][name], array)


def test_a_record_without_masks(tmp_path):
    write_record(tmp_path / "record", {"kind": "test"}, {"a": {"b": np.ones(1)}})
    assert read_record(tmp_path / "record", "test")[2] is None


@pytest.mark.parametrize(
    ("density", "least", "most"), [(0.5, 100_000, 101_000), (0.05, 28_600, 40_000)]
)
def test_masks_take_a_bit_a_weight_at_most(tmp_path, density, least, most):
    """28,600 bytes is the entropy of a mask of 800,000 weights at 5 %."""
    kept = np.random.default_rng(0).random((1000, 800)) < density
    write_record(tmp_path / "record", {"kind": "test"}, {}, Masks({"kernel": kept}))
    assert least < (tmp_path / "record").stat().st_size < most


def small(path):
    """A record with something of everything, and its bytes."""
    states = {"a": {"b": np.arange(3.0), "c": np.ones((2, 2), ml_dtypes.bfloat16)}}
    masks = Masks({"b": [True, False, True]})
    write_record(path, {"kind": "test", "n": 1}, states, masks)
    return path.read_bytes()


def test_equal_records_are_equal_files(tmp_path):
    assert small(tmp_path / "one") == small(tmp_path / "other")


def test_others_read_the_arrays(tmp_path):
    """What is on disk is an ordinary safetensors file."""
    write_record(tmp_path / "record", {"kind": "test"}, {"a": {"b": np.arange(3.0)}})
    with safe_open(tmp_path / "record", "numpy") as file:
        assert file.metadata().keys() == {"sha256"}
        np.testing.assert_array_equal(file.get_tensor("a:b"), np.arange(3.0))


KINDS = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_come_back_bit_for_bit(tmp_path, kind):
    """Of any bits (NaN of every kind, negative zeros), in any order in memory."""
    dtype = np.dtype(kind)
    bits = np.random.default_rng(0).integers(0, 256, 12 * dtype.itemsize, "uint8")
    array = (bits % 2 if kind == "bool" else bits).view(dtype).reshape(3, 4)
    state = {
        "plain": array,
        "transposed": array.T,
        "of another order": np.asfortranarray(array),
        "a part": array[::-2, 1:],
        "one number": array[1, 2],
        "none": array[:0],
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
    }
    write_record(tmp_path / "record", {"kind": "test"}, {"a": state})
    again = read_record(tmp_path / "record", "test")[1]["a"]
    assert list(again) == list(state)
    for name, one in state.items():
        assert (again[name].dtype, again[name].shape) == (dtype, one.shape)
        assert again[name].tobytes() == one.astype(dtype).tobytes()
        assert again[name].flags.writeable


def test_what_safetensors_cannot_hold_is_refused(tmp_path):
    states = {"a": {"b": np.ones(2, complex)}}
    with pytest.raises(SafetensorError, match="complex128"):
        write_record(tmp_path / "record", {"kind": "test"}, states)
    assert not list(tmp_path.iterdir())


def assert_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(CorruptedFileError, match="record"):
        read_record(path, "test")


def test_every_flipped_byte_and_every_truncation_is_refused(tmp_path):
    path = tmp_path / "record"
    whole = small(path)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        assert_refused(path, damaged)
        assert_refused(path, whole[:place])
    assert_refused(path, whole + b"\0")
    assert_refused(path, whole[1:])


def test_the_meta_is_read_alone(tmp_path):
    path = tmp_path / "record"
    write_record(path, {"kind": "test", "n": 1}, {"a": {"b": np.arange(999.0)}})
    whole = path.read_bytes()
    at = whole.index(np.arange(999.0).tobytes())
    path.write_bytes(whole[: at + 9] + b"?" + whole[at + 10 :])
    assert read_meta(path, "test") == {"kind": "test", "n": 1}
    with pytest.raises(CorruptedFileError, match="checksum"):
        read_record(path, "test")
    with pytest.raises(CorruptedFileError, match="Expected a ticket"):
        read_meta(path, "ticket")


def test_a_damaged_meta_is_not_read(tmp_path):
    """Whatever byte of it is another."""
    path = tmp_path / "record"
    whole = small(path)
    with safe_open(path, "numpy") as file:
        meta = file.get_tensor("meta").tobytes()
    at = whole.index(meta)
    for place in range(at, at + len(meta)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptedFileError, match="record"):
            read_meta(path, "test")
    for damaged in (b"", whole[:-1], whole[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptedFileError, match="record"):
            read_meta(path, "test")


@pytest.mark.parametrize("read", [read_record, read_meta])
def test_what_cannot_be_read_is_not_called_damaged(tmp_path, read):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "record", "test")
    with pytest.raises(OSError, match=r"[Dd]irectory|[Dd]evice"):
        read(tmp_path, "test")


def forged(path, contents=(), **arrays):
    """A record of the test's own making, whose checksum is right."""
    contents = {
        "format": files.FORMAT,
        "states": {"a": {"b": "float64"}},
        "masks": {"b": [3]},
        "meta": {"kind": "test"},
        **dict(contents),
    }
    arrays = {
        "meta": packed(json.dumps(contents).encode()),
        "a:b": np.arange(3.0),
        "masks:b": packed(np.packbits([True, False, True])),
        **{name.replace("__", ":"): array for name, array in arrays.items()},
    }
    present = {name: array for name, array in arrays.items() if array is not None}
    seal(path, save(present, {"sha256": "0" * 64}))


def packed(content):
    return np.frombuffer(zlib.compress(content), np.uint8)


def seal(path, data):
    """Writes bytes with the checksum that is theirs."""
    first, last = data.index(b'sha256":"') + 9, data.index(b'sha256":"') + 73
    digest = hashlib.sha256(data[:first] + data[last:]).hexdigest()
    path.write_bytes(data[:first] + digest.encode() + data[last:])


MASK = "bytes for a mask"
LIES = {
    "the mask is huge": (MASK, {"contents": {"masks": {"b": [10**6, 10**6]}}}),
    "the mask is larger": (MASK, {"contents": {"masks": {"b": [9]}}}),
    "the mask is negative": ("dimension", {"contents": {"masks": {"b": [-1, -3]}}}),
    "the mask is no mask": ("decompressing", {"masks__b": np.zeros(9, np.uint8)}),
    "a mask is missing": ("masks:b", {"masks__b": None}),
    "an array is missing": ("a:b", {"a__b": None}),
    "an array is of no type": ("typo", {"contents": {"states": {"a": {"b": "typo"}}}}),
    "an array is objects": ("OBJECT", {"contents": {"states": {"a": {"b": "O"}}}}),
    "an array is larger": (
        "reshape",
        {"contents": {"states": {"a": {"b": "float32"}}}},
    ),
    "there are more arrays": ("other arrays", {"c__d": np.ones(1)}),
    "the meta is missing": ("'meta'", {"meta": None}),
    "the meta is no JSON": ("JSON", {"meta": packed(b"[1")}),
    "the meta is another JSON": ("indices", {"meta": packed(b"[1]")}),
    "the format is another": (r"format 1\. .*format 9", {"contents": {"format": 9}}),
}


@pytest.mark.parametrize(("found", "lie"), LIES.values(), ids=list(LIES))
def test_files_that_lie_are_refused(tmp_path, found, lie):
    """Their checksums are right: somebody made them so."""
    path = tmp_path / "record"
    forged(path)
    assert read_record(path, "test")[2] == Masks({"b": [1, 0, 1]})
    forged(path, **lie)
    with little_memory(), pytest.raises(CorruptedFileError, match=found):
        read_record(path, "test")


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("place", ["header", "array"])
def test_sizes_that_lie_take_no_memory(tmp_path, place):
    path = tmp_path / "record"
    forged(path)
    data = path.read_bytes()
    if place == "header":
        seal(path, (2**40).to_bytes(8, "little") + data[8:])
    else:
        seal(path, data.replace(b'"shape":[3]', b'"shape":[9]', 1))
    for read in (read_record, read_meta):
        with little_memory(), pytest.raises(CorruptedFileError, match="Safetensor"):
            read(path, "test")


class Harmful:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_foreign_files_are_refused_and_nothing_is_unpickled(tmp_path):
    path, trace = tmp_path / "record", tmp_path / "trace"
    harmful = np.array([Harmful(trace)], object)
    for write in (
        lambda file: None,
        lambda file: file.write(b"a record\n"),
        lambda file: pickle.dump(Harmful(trace), file),
        lambda file: np.save(file, np.ones(3)),
        lambda file: np.save(file, harmful, allow_pickle=True),
        lambda file: np.savez(file, header=harmful),
        lambda file: file.write(save({"a": np.ones(3)})),
    ):
        with open(path, "wb") as file:
            write(file)
        for read in (read_record, read_meta):
            with pytest.raises(CorruptedFileError, match="not written by"):
                read(path, "test")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace))).close()
    assert trace.exists(), "or the test shows nothing"
