"""Workers: the same results for any number of them, and whatever happens to one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pandas as pd
import psutil
import pytest

from keras_lottery.engines.engine import Engine
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.store import Store
from keras_lottery.search.workers import pool, worker
from keras_lottery.search.workers.processes import Processes

pytestmark = pytest.mark.slow

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
FIT = {
    "x": X[:100],
    "y": Y[:100],
    "validation_data": (X[100:150], Y[100:150]),
    "test_data": (X[150:], Y[150:]),
    "batch_size": 16,
    "epochs": 2,
    "verbose": 0,
}


def build():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(12, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2),
        ]
    )
    # A function of one's own has to reach the workers.
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def loss(y, predictions):
    return keras.losses.sparse_categorical_crossentropy(y, predictions, True)


def search(directory=None, **arguments):
    defaults = {"schedule": [0.5], "controls": {"reinit": 1}, "replicates": 2}
    made = LotteryTicketSearch(build, directory=directory, **(defaults | arguments))
    return made.search(**FIT).drop(columns="seconds")


@pytest.mark.once
def test_where_all_is_stored_no_worker_starts(tmp_path, monkeypatch):
    table = search(tmp_path, workers=1, replicates=1)

    def submit(self, task):
        raise AssertionError(f"{task} went to a worker")

    monkeypatch.setattr(Processes, "submit", submit)
    pd.testing.assert_frame_equal(search(tmp_path, replicates=1), table)
    with pytest.raises(AssertionError, match="went to a worker"):
        search(tmp_path)


@pytest.mark.once
def test_a_worker_gets_ready_before_there_is_a_task():
    setup = mock.Mock()
    setup.make_in_worker.return_value = engine = mock.Mock(Engine)
    assert worker.train("its own", lambda: setup, lambda: None, print) is None
    engine.prepare.assert_called_once_with()
    engine.do.assert_not_called()


@pytest.mark.once
def test_a_model_that_no_worker_can_make_trains_here(tmp_path):
    @keras.saving.register_keras_serializable("test_workers")
    class Local(keras.layers.Dense):
        """A class that only this process knows."""

    dense = keras.layers.Dense(4)
    given = keras.Sequential([keras.Input((6,)), dense, Local(2)])
    given.compile("adam", loss, metrics=["accuracy"])
    made = LotteryTicketSearch(
        given, [0.5], directory=tmp_path, workers=1, prunable="dense*"
    )
    with pytest.raises(ValueError, match=r"a worker cannot make the model(.|\n)*Local"):
        made.search(**FIT)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_search_in_workers_goes_on_in_workers_of_any_number(tmp_path, one_worker):
    search(tmp_path, workers=2, replicates=1)
    with pytest.raises(ValueError, match="in_workers: True there, False here"):
        search(tmp_path, workers=0)
    pd.testing.assert_frame_equal(search(tmp_path), one_worker)


class Die(keras.callbacks.Callback):
    """Ends its process, as long as the file says so."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs=None):
        if self.path.exists():
            deaths = int(self.path.read_text())
            self.path.write_text(str(deaths - 1)) if deaths > 1 else self.path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.once
def test_the_work_of_a_worker_that_dies_is_done_again(tmp_path, one_worker):
    (tmp_path / "deaths").write_text("1")
    made = LotteryTicketSearch(build, [0.5], replicates=2, workers=2)
    with pytest.warns(UserWarning, match="A worker died"):
        made.search(**FIT, callbacks=[Die(tmp_path / "deaths")])
    table = made.results().drop(columns="seconds")
    pd.testing.assert_frame_equal(table, one_worker)


@pytest.mark.once
def test_what_cannot_be_sent_to_workers_is_refused():
    import threading

    class Locked(keras.callbacks.Callback):
        lock = threading.Lock()

        def __getstate__(self):
            return {"lock": self.lock}

    made = LotteryTicketSearch(build, [0.5], workers=2)
    with pytest.raises(ValueError, match=r"workers=2 .*Use workers=0"):
        made.search(**FIT, callbacks=[Locked()])


@pytest.mark.once
def test_workers_that_die_and_die_end_the_search(tmp_path, monkeypatch):
    # Starting one takes seconds: the second death is too many.
    monkeypatch.setattr(pool, "MAX_DEATHS", 1)
    (tmp_path / "deaths").write_text("99")
    made = LotteryTicketSearch(build, [0.5], workers=1)
    with (
        pytest.warns(UserWarning, match="A worker died"),
        pytest.raises(RuntimeError, match=r"died 2 times.*Choose fewer `workers`"),
    ):
        made.search(**FIT, callbacks=[Die(tmp_path / "deaths")])
    assert not list(made.store.directory.rglob("level_*"))


# Jobs that a shell starts in the background ignore the signal.
LONG = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.search.test_workers import FIT, build
import keras_lottery as kl
search = kl.LotteryTicketSearch(build, [0.5], workers=2, replicates=2, directory="run")
search.search(**FIT | {"epochs": 10**6})
"""


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_ctrl_c_ends_all_workers(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 300

    def alive():
        found = [Path(f"/proc/{pid}") for pid in children.read_text().split()]
        return [c for c in found if b"popen_loky" in (c / "cmdline").read_bytes()]

    while len(started := alive()) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(started) == 2
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert "KeyboardInterrupt" in error
    deadline = time.monotonic() + 120
    while any(running(worker) for worker in started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(running(worker) for worker in started)


def running(process):
    try:
        return "Z (zombie)" not in (process / "status").read_text()
    except OSError:
        return False


KILLED = """
from tests.search.test_workers import search
search("run", workers=2)
"""


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize("begun", [False, True])
def test_workers_end_with_a_killed_parent(tmp_path, one_worker, begun):
    """While they start, before Keras is there, and while they train."""
    store = Store(tmp_path / "run")
    parent = psutil.Popen(
        [sys.executable, "-c", KILLED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    workers = []
    while len(workers) < 2 or (begun and not store.settings.exists()):
        assert time.monotonic() < deadline and parent.is_running()
        time.sleep(0.1)
        children = parent.children()
        workers = [c for c in children if "popen_loky" in "".join(c.cmdline())]
    parent.kill()
    parent.wait()
    with store.alone(patience=0):  # It is free at once.
        pass
    # Python gives up its lock seldom while it imports TensorFlow.
    deadline = time.monotonic() + (2 if begun else 10)
    places = [Path(f"/proc/{child.pid}") for child in children]
    while left := [place for place in places if running(place)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    if begun:
        again = search(store.directory, workers=2)
        pd.testing.assert_frame_equal(again, one_worker)
