"""Workers that die, or cannot be had, and what they say: without any process."""

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest

from keras_lottery.engines.record import Reached
from keras_lottery.engines.task import Done, Facts, Task, Training
from keras_lottery.files import write_sealed
from keras_lottery.masks import Masks
from keras_lottery.search import workers
from keras_lottery.search.setup import Setup
from keras_lottery.search.store import Store
from keras_lottery.search.workers import choose, processes, worker
from keras_lottery.search.workers.pool import Workers
from keras_lottery.search.workers.worker import Outcome
from keras_lottery.tickets import Ticket

pytestmark = pytest.mark.once

TICKET = Ticket(Masks.dense({"a": (3,)}), {}, 0, 1)
FACTS = Facts.of(TICKET)
ENGINE = SimpleNamespace(model=None, data=None, objective=None, name="fit")


class Pool:
    """Breaks so often, and what runs in it learns so one after the other."""

    count = 4
    most = 5

    def __init__(self, breaks):
        self.breaks = breaks
        self.running = []
        self.threads = ThreadPoolExecutor(8)

    def submit(self, work):
        future = Future()
        if not self.breaks:
            self.threads.submit(self._finish, future, work)
            return future
        self.running.append(future)
        if work is None or len(self.running) > self.count:
            self.breaks -= 1
            self.threads.submit(self._break, self.running)
            self.running = []
        return future

    def _finish(self, future, work):
        if work is not None:
            time.sleep(0.3)  # A new worker has to start.
        future.set_result(None if work is None else Outcome(FACTS, "trained"))

    def _break(self, running):
        for future in running:
            future.set_exception(BrokenProcessPool())
            time.sleep(0.02)

    def look(self):
        return {}

    def close(self):
        self.threads.shutdown()


def trained(pool, number=5):
    tasks = [Task(TICKET, 0) for _ in range(number)]
    done = Workers(ENGINE, pool).train_all(tasks[:], lambda *_: None)
    found = {one.task: one.result for one in done}
    return [found[task] for task in tasks]


def test_a_pool_that_breaks_once_is_one_death_of_each_training():
    with pytest.warns(UserWarning, match="A worker died"):
        assert trained(Pool(1)) == ["trained"] * 5


def test_a_training_whose_worker_dies_again_and_again_ends_the_search():
    with (
        pytest.warns(UserWarning, match="A worker died"),
        pytest.raises(RuntimeError, match=r"died 4 times.*Choose fewer `workers`"),
    ):
        trained(Pool(4))


def setup():
    return Setup(None, None, 0, "fit", SimpleNamespace(parts={}), {})


def employ(monkeypatch, number, breaks):
    monkeypatch.setattr(choose, "_choose", lambda *_: 2)
    monkeypatch.setattr(choose, "_obstacle", lambda *_: None)
    monkeypatch.setattr(choose, "_pool", lambda *_: Pool(breaks))
    return workers.employ(number, ENGINE, setup(), TICKET, 2, 10)


def employed(*how):
    with employ(*how) as trainer:
        return trainer


def test_workers_that_die_as_they_start_leave_the_training_to_this_process(monkeypatch):
    with pytest.warns(UserWarning, match=r"died as it started.*trains alone"):
        assert employed(monkeypatch, "auto", 1) is ENGINE
    with pytest.raises(ValueError, match=r"workers=2 .*died as it started.*workers=0"):
        employed(monkeypatch, 2, 1)


def test_what_was_begun_in_workers_asks_for_them_by_no_number(monkeypatch, tmp_path):
    store = Store(tmp_path)
    write_sealed(
        store.settings, {"engine": "fused", "in_workers": True, "versions": {}}
    )
    engine, number = workers.as_before(store, "auto", "auto")
    assert engine == "fused"
    assert employed(monkeypatch, number, 0).pool.count == Pool.count
    # Nobody is asked for a worker before there is a task.
    refused = pytest.raises(ValueError, match=r"in worker processes.*`directory`")
    with employ(monkeypatch, number, 1) as hired:
        assert list(hired.train_all([], print)) == []
        with refused:
            next(hired.train_all([Task(TICKET, 0)], print))


class Telling:
    """An engine that tells how far a training is, each second twice."""

    def do(self, task, progress):
        for step in range(1, 4):
            worker.time.now[0] += 0.5
            progress(Reached(step, step / 2, 8, 0.25))
        return Done(task, FACTS, Training({}, {}, {}, {}))


def test_workers_tell_how_far_trainings_are(monkeypatch, tmp_path):
    now = [0.0]
    clock = SimpleNamespace(now=now, monotonic=lambda: now[0])
    monkeypatch.setattr(worker, "time", clock)
    pool, task, path = processes.Processes(setup(), 1), Task(TICKET, 0), tmp_path / "to"
    pool._running[task] = path
    assert pool.look() == {}
    told = []

    def report(reached):
        processes._report(path, reached)
        told.append(pool.look()[task])

    made = SimpleNamespace(make_in_worker=Telling)
    worker.train("key", lambda: made, lambda: task, report)
    begun, far = told
    assert (begun.step, begun.epochs) == (0, 0) and math.isnan(begun.loss)
    assert far == Reached(2, 1.0, 8, 0.25)
    path.write_bytes(path.read_bytes()[:5])  # Half written.
    assert pool.look() == {}
    pool.close()
