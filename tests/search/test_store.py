"""Files are written whole or not at all."""

import errno
import hashlib
import io
import json
import os
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest

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
from keras_lottery.search.store import Store, Unit

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


def test_clean_removes_what_a_killed_writer_leaves(tmp_path):
    path, left = tmp_path / "replicate_0" / "file", []
    write_json(path, "old")

    def killed(file):
        left.extend(set(path.parent.iterdir()) - {path})
        interrupted(file)

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, killed)
    left[0].write_bytes(b"half of the new one")
    Store(tmp_path).clean()
    assert list(path.parent.iterdir()) == [path]
    assert read_json(path) == "old"


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
    ("density", "least", "most"), [(0.5, 100_000, 102_000), (0.05, 28_600, 40_000)]
)
def test_masks_take_a_bit_a_weight_at_most(tmp_path, density, least, most):
    """28,600 bytes is the entropy of a mask of 800,000 weights at 5 %."""
    kept = np.random.default_rng(0).random((1000, 800)) < density
    write_record(tmp_path / "record", {"kind": "test"}, {}, Masks({"kernel": kept}))
    assert least < (tmp_path / "record").stat().st_size < most


def test_equal_records_are_equal_files(tmp_path):
    for name in ("one", "other"):
        write_record(tmp_path / name, {"kind": "test"}, {"a": {"b": np.ones(1)}})
        # The zip's dates count in steps of two seconds: they must not be in it.
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert {m.date_time[0] for m in archive.infolist()} == {1980}
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_meta_is_read_alone(tmp_path):
    path = tmp_path / "record"
    write_record(path, {"kind": "test", "n": 1}, {"a": {"b": np.arange(999.0)}})
    content = path.read_bytes()
    at = content.index(np.arange(999.0).tobytes())
    path.write_bytes(content[: at + 9] + b"?" + content[at + 10 :])
    assert read_meta(path, "test") == {"kind": "test", "n": 1}
    with pytest.raises(CorruptedFileError, match="checksum"):
        read_record(path, "test")
    with pytest.raises(CorruptedFileError, match="Expected a ticket"):
        read_meta(path, "ticket")
    for damaged in (b"", content[:-1], content[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptedFileError, match="record"):
            read_record(path, "test")


def test_records_of_format_1_are_read(tmp_path):
    header = {
        "format": 1,
        "groups": ["a"],
        "dtypes": {"a:b": "float64", "masks:b": "uint8"},
        "mask_shapes": {"b": [3]},
        "meta": {"kind": "test"},
    }
    arrays = {
        "a:b": np.arange(3.0),
        "masks:b": np.packbits([True, False, True]),
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
    }
    path = tmp_path / "record.npz"
    np.savez(path, **arrays)
    meta, states, masks = read_record(path, "test")
    assert (meta, masks) == ({"kind": "test"}, Masks({"b": [1, 0, 1]}))
    np.testing.assert_array_equal(states["a"]["b"], np.arange(3.0))
    assert read_meta(path, "test") == meta


def sealed(path, members, compression=zipfile.ZIP_DEFLATED):
    """A file whose checksum is right, whatever else it holds."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = bytes(71)
        for name, content in members.items():
            archive.writestr(name, content)
    content = buffer.getvalue()[:-71]
    digest = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content + b"sha256:" + digest)


def npy(array, shape=None):
    """An array's file, that may claim another shape."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    if shape is not None:
        old = str(array.shape).encode()
        content = content.replace(old + b", }", shape.encode() + b", }")
        surplus = len(shape) - len(old)
        content = content.replace(b" " * surplus + b"\n", b"\n", 1)
    return content


HUGE = "(1000000000000,)"


def lying(mask_shape=(3,), array=None, groups=("a",), lost=None):
    header = {
        "format": 2,
        "groups": list(groups),
        "dtypes": {"a:b": "float64"},
        "mask_shapes": {"b": mask_shape},
        "meta": {"kind": "test"},
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    members = {
        "header.npy": npy(text),
        "a:b.npy": array or npy(np.arange(3.0)),
        "masks:b.npy": npy(np.packbits([True, False, True])),
    }
    return {name: member for name, member in members.items() if name != lost}


MASK, ARRAY = "bytes for a mask", "holds 24 bytes, not"
LIES = {
    "the mask is huge": (MASK, lying(mask_shape=(10**6, 10**6))),
    "the mask is larger": (MASK, lying(mask_shape=(9,))),
    "the mask is negative": ("dimension", lying(mask_shape=(-1, -3))),
    "the array is huge": (ARRAY, lying(array=npy(np.arange(3.0), HUGE))),
    "the array is larger": (ARRAY, lying(array=npy(np.arange(3.0), "(4,)"))),
    "the array is smaller": (ARRAY, lying(array=npy(np.arange(3.0), "(2,)"))),
    "an array is missing": ("arrays are missing", lying(lost="a:b.npy")),
    "a mask is missing": ("KeyError", lying(lost="masks:b.npy")),
    "the header is missing": ("no item named", lying(lost="header.npy")),
    "there is another group": ("KeyError", lying(groups=())),
}


@pytest.mark.parametrize(("found", "members"), LIES.values(), ids=list(LIES))
def test_files_that_lie_are_refused(tmp_path, found, members):
    """Their checksums are right: somebody made them so."""
    path = tmp_path / "record"
    sealed(path, lying())
    assert read_record(path, "test")[2] == Masks({"b": [1, 0, 1]}), (
        "or it shows nothing"
    )
    sealed(path, members)
    tracemalloc.start()
    with pytest.raises(CorruptedFileError, match=found):
        read_record(path, "test")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_bombs_are_refused(tmp_path):
    path = tmp_path / "record"
    sealed(path, lying() | {"a:c.npy": npy(np.zeros(10**6))}, zipfile.ZIP_LZMA)
    with pytest.raises(CorruptedFileError, match="unknown way"):
        read_record(path, "test")
    # One member's size, in the directory at the end: 4 bytes, 22 before the name.
    sealed(path, lying())
    content = path.read_bytes()[:-71]
    at = content.rindex(b"a:b.npy") - 22
    content = content[:at] + b"\xff\xff\xff\x7f" + content[at + 4 :]
    path.write_bytes(
        content + b"sha256:" + hashlib.sha256(content).hexdigest().encode()
    )
    for read in (read_record, read_meta):
        with pytest.raises(CorruptedFileError, match="larger than it can be"):
            read(path, "test")


def test_every_unit_has_a_place_of_its_own(tmp_path):
    store = Store(tmp_path)
    units = [
        Unit(replicate, level, variant, trial)
        for replicate in (0, 1, 11)
        for level in (0, 1, 11)
        for variant in ("ticket", "reinit")
        for trial in (0, 1, 11)
    ]
    paths = [store.training(unit) for unit in units]
    paths += [store.initial(replicate) for replicate in (0, 1, 11)]
    paths += [store.settings, store.results]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_clear_leaves_what_is_not_the_searchs(tmp_path):
    store = Store(tmp_path)
    for path in (store.training(Unit(0, 1, "ticket")), store.initial(0)):
        write_record(path, {"kind": "test"}, {})
    for path in (store.settings, store.results, tmp_path / "notes.txt"):
        write_json(path, 1)
    store.clear()
    assert [path.name for path in tmp_path.rglob("*")] == ["notes.txt"]
