"""Trainings on the machines of a Ray cluster."""

import uuid
from concurrent.futures import Future
from functools import partial
from typing import Any

import keras

from keras_lottery.engines.engine import Task
from keras_lottery.search.setup import Setup
from keras_lottery.search.workers.pool import MAX_DEATHS
from keras_lottery.search.workers.worker import ONE_THREAD, train


class RayCluster:
    """Workers of a Ray cluster, one for each of its CPUs.

    A cluster that this process is connected to, or that `RAY_ADDRESS` names, is used;
    otherwise one is started on this machine. keras_lottery has to be installed on all
    machines of the cluster. Ray itself starts a training again whose worker died.

    Args:
        setup: what the workers make their engines of.

    Raises:
        ImportError: if Ray is not installed.
    """

    def __init__(self, setup: Setup) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError(
                "workers='ray' needs Ray: pip install 'keras_lottery[ray]'"
            ) from error
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(include_dashboard=False, log_to_driver=False)
        self.count = max(1, int(ray.cluster_resources().get("CPU", 1)))
        environment = {**ONE_THREAD, "KERAS_BACKEND": keras.backend.backend()}
        remote = ray.remote(num_cpus=1, max_retries=MAX_DEATHS)
        self._train = remote(train).options(runtime_env={"env_vars": environment})
        # In a list, Ray hands over the reference; workers fetch the data once.
        load = partial(_fetch, [ray.put(setup)])
        self._arguments = uuid.uuid4().hex, load
        self._running: set[Any] = set()

    def submit(self, task: Task | None) -> "Future[Any]":
        """Begins a training."""
        reference = self._train.remote(*self._arguments, task)
        future = reference.future()
        self._running.add(reference)
        future.add_done_callback(lambda _: self._running.discard(reference))
        return future

    def close(self) -> None:
        """Ends all trainings, and the cluster if it was started for them."""
        for reference in list(self._running):
            self._ray.cancel(reference, force=True)
        if self._started:
            self._ray.shutdown()


def _fetch(references: list[Any]) -> Setup:
    import ray

    return ray.get(references[0])
