"""Files are written whole or not at all."""

import errno
import os
import threading

import numpy as np
import pytest

from keras_lottery.masks import Masks
from keras_lottery.store import (
    CorruptedFileError,
    Store,
    Unit,
    read_json,
    read_record,
    write_atomically,
    write_json,
    write_record,
)


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


def test_masks_take_a_bit_a_weight(tmp_path):
    masks = Masks.dense({"kernel": (1000, 800)})
    write_record(tmp_path / "record", {"kind": "test"}, {}, masks)
    assert 100_000 < (tmp_path / "record").stat().st_size < 102_000


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
