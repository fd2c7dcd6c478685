"""The directory of a search: its paths, its lock, and what is removed from it."""

import errno
import os
import subprocess
import sys

import pytest

from keras_lottery.files import (
    TEMPORARY,
    read_json,
    write_atomically,
    write_json,
    write_record,
)
from keras_lottery.search.locks import Locks
from keras_lottery.search.store import Store, TrainingId

pytestmark = pytest.mark.once


def test_clean_removes_what_a_killed_writer_leaves(tmp_path):
    path, left = Store(tmp_path).training(TrainingId(0, 1, "ticket")), []
    write_json(path, "old")
    other = tmp_path / "other" / "replicate_0" / f"{TEMPORARY}by_another_search"
    write_json(other, "it is running")

    def killed(file):
        left.extend(set(path.parent.iterdir()) - {path})
        file.write(b"half of the new one")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, killed)
    left[0].write_bytes(b"half of the new one")
    for replicate in (None, 1):  # Those who write beside it leave it.
        Store(tmp_path).clean(replicate)
        assert left[0].exists()
    Store(tmp_path).clean(0)
    assert list(path.parent.iterdir()) == [path]
    assert read_json(path) == "old"
    assert other.exists()


def test_every_unit_has_a_place_of_its_own(tmp_path):
    store = Store(tmp_path)
    ids = [
        TrainingId(replicate, level, variant, trial)
        for replicate in (0, 1, 11)
        for level in (0, 1, 11)
        for variant in ("ticket", "reinit")
        for trial in (0, 1, 11)
    ]
    paths = [store.training(which) for which in ids]
    paths += [store.initial(replicate) for replicate in (0, 1, 11)]
    paths += [store.settings, store.results]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_clear_leaves_what_is_not_the_searchs(tmp_path):
    store = Store(tmp_path)
    for path in (store.training(TrainingId(0, 1, "ticket")), store.initial(0)):
        write_record(path, {"kind": "test"}, {})
    for path in (store.settings, store.results, tmp_path / "notes.txt"):
        write_json(path, 1)
    store.clear()
    assert [path.name for path in tmp_path.rglob("*")] == ["notes.txt"]


HOLDER = """
import sys, time, filelock
with filelock.FileLock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    store = Store(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(store.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            with (
                pytest.raises(BlockingIOError, match="Another search is running"),
                store.alone(patience=0),
            ):
                pass
        finally:
            holder.kill()
    for _ in range(2):
        with store.alone():
            pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_that_cannot_lock_is_refused(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl", reason="Windows locks in another way")

    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    store = Store(tmp_path)
    with (
        pytest.raises(OSError, match=r"that locks files.*another file system"),
        store.alone(),
    ):
        pytest.fail("nothing is locked")
    with pytest.raises(OSError, match=r"that locks files.*another file system"):
        Locks(store).take(0)


def test_who_trains_a_replicate_is_said(tmp_path):
    store = Store(tmp_path)
    locks = Locks(store)
    assert locks.take(3)
    assert f"process {os.getpid()}" in Locks(store).holder(3)
    store.holder_of(3).write_text("")  # The disk was full.
    assert Locks(store).holder(3) == "another process"


def test_searches_in_other_directories_do_not_meet(tmp_path):
    with Store(tmp_path / "one").alone(), Store(tmp_path / "other").alone():
        pass
    with (
        Store(tmp_path / "one").alone(),
        pytest.raises(BlockingIOError),
        Store(tmp_path / "one").alone(patience=0),
    ):
        pass


def test_the_lock_is_no_part_of_the_search(tmp_path):
    store = Store(tmp_path)
    with store.alone():
        store.clear()
        with pytest.raises(BlockingIOError), Store(tmp_path).alone(patience=0):
            pass
    assert store.training_ids() == []
