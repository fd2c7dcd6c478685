"""The same search on a Ray cluster of two nodes, one worker of which is killed."""

import os
import signal
import sys

import keras
import pandas as pd
import pytest

from keras_lottery.search import LotteryTicketSearch
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
    table = made.search(**FIT, callbacks=[DieOnce(tmp_path / "once")])
    assert not (tmp_path / "once").exists()
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), one_worker)
    # A cluster that was there before is left as it is.
    assert ray.is_initialized()
    assert len(ray.nodes()) == 2
