"""Searches on a Ray cluster: the same tickets, whatever it has and loses."""

import os
import signal
import sys
import time
from types import SimpleNamespace

import keras
import pandas as pd
import pytest

from keras_lottery.engines.task import Task
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.setup import Setup
from keras_lottery.search.workers import ray_cluster
from keras_lottery.search.workers.ray_cluster import RayCluster
from tests.search.test_workers import FIT, build

pytestmark = [pytest.mark.once, pytest.mark.slow]

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")


@pytest.fixture
def cluster(monkeypatch):
    # The nodes find the tests' modules where this process does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class DieOnce(keras.callbacks.Callback):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs=None):
        if self.path.exists():
            self.path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_cluster_finds_the_same_tickets(cluster, tmp_path, one_worker):
    (tmp_path / "once").touch()
    made = LotteryTicketSearch(build, [0.5], replicates=2, workers="ray")
    with pytest.warns(UserWarning, match="was lost with process .* begins it again on"):
        table = made.search(**FIT, callbacks=[DieOnce(tmp_path / "once")])
    assert not (tmp_path / "once").exists()
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), one_worker)
    # A cluster that was there before is left as it is.
    assert ray.is_initialized()
    assert len(ray.nodes()) == 2


class Always(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:No training has begun")
@pytest.mark.filterwarnings("ignore:The training of .* was lost")
def test_what_ray_gives_up_is_named(cluster):
    made = LotteryTicketSearch(
        build, [0.5], workers="ray", resources={"max_retries": 1}, controls=()
    )
    with pytest.raises(RuntimeError, match=r"level 0: ticket was given up by Ray"):
        made.search(**FIT, callbacks=[Always()])


def test_what_cannot_be_scheduled_is_said_and_waited_for(cluster, monkeypatch):
    monkeypatch.setattr(ray_cluster, "PATIENCE", 3)
    made = LotteryTicketSearch(
        build, [0.5], workers="ray", resources={"resources": {"rare": 1}}, controls=()
    )
    real = RayCluster._waiting

    def waiting(pool):
        cluster.add_node(num_cpus=1, resources={"rare": 1})
        return real(pool)

    monkeypatch.setattr(RayCluster, "_waiting", waiting)
    with pytest.warns(UserWarning, match=r"asks for .*'rare': 1.*cluster has .*'CPU'"):
        made.search(**FIT)
    assert len(made.results()) == 2


def test_a_gpu_is_shared_as_far_as_trainings_ask_for(monkeypatch):
    """Four quarters of a pretended GPU are trained in at once; a fifth waits."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    how = {"include_dashboard": False, "log_to_driver": False}
    ray.init("local", num_cpus=8, num_gpus=1, **how)
    setup = Setup(sleeping, None, 0, "fit", SimpleNamespace(), {})
    pool = RayCluster(setup, {"num_gpus": 0.25})
    try:
        assert pool.count == 4
        tasks = [Task(None, seed) for seed in range(5)]
        for task in tasks:
            pool.submit(task)
        deadline = time.monotonic() + 300
        while len(pool.look()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(5)
        assert len(pool.look()) == 4
    finally:
        pool.close()
        ray.shutdown()


def test_the_dashboard_is_named_where_there_is_one(monkeypatch, capsys):
    class Joined(Exception):
        pass

    def context():
        raise Joined

    for url, said in (("127.0.0.1:8265", ["Ray's dashboard: http://127.0.0.1:8265"]),
                      ("", [])):  # fmt: skip
        joined = SimpleNamespace(dashboard_url=url)
        monkeypatch.setattr(ray, "init", lambda *_, joined=joined, **how: joined)
        monkeypatch.setattr(ray, "get_runtime_context", context)
        with pytest.raises(Joined):
            RayCluster(None, {}, verbose=1)
        assert capsys.readouterr().out.splitlines() == said


def sleeping():
    time.sleep(600)
