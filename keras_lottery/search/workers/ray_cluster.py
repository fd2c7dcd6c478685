"""Trains on the machines of a Ray cluster."""

import contextlib
import dataclasses
import itertools
import logging
import os
import socket
import time
import uuid
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.record import Reached
from keras_lottery.engines.task import Task
from keras_lottery.keras_bridge.layers import State
from keras_lottery.search.setup import Setup
from keras_lottery.search.workers.pool import MAX_DEATHS
from keras_lottery.search.workers.sharing import Sharing, loads
from keras_lottery.search.workers.worker import ONE_THREAD, Outcome, train

PATIENCE = 30.0
"""Seconds without any training after which it is said what is waited for."""
LOST = 20.0
"""Seconds without an answer after which the head of the cluster counts as lost."""

Seen = tuple[Reached, list[str]]
"""How far a task is, and where it was begun, the last place last."""

SHARED_GPU = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
"""The environment of a training that has a GPU for itself in part alone."""


class RayCluster:
    """Workers of a Ray cluster, as many as its resources allow.

    If this process is connected to a cluster, or `RAY_ADDRESS` names one, that cluster
    is used; otherwise one is started on this machine. keras_lottery has to be installed
    on all machines of the cluster. Each training is a Ray task: a machine that joins
    receives tasks, and Ray itself restarts a task whose worker or machine was lost.

    Args:
        setup: what the workers build their engines from.
        resources: what each training needs, as options of a Ray task.
        verbose: 0 hides the address of Ray's dashboard.

    Raises:
        ImportError: if Ray is not installed.
    """

    def __init__(
        self, setup: Setup, resources: Mapping[str, Any], verbose: int = 0
    ) -> None:
        # Ray prints a page about every machine that it loses; here it is a line.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        try:
            import ray
        except ImportError as error:
            raise ImportError(
                "workers='ray' needs Ray: pip install 'keras_lottery[ray]'"
            ) from error
        self._ray = ray
        options = {"num_cpus": 1, "max_retries": MAX_DEATHS, **resources}
        own = dict(options.pop("runtime_env", None) or {})
        self._started = not ray.is_initialized()
        if self._started:
            # Folders can be sent to a cluster only as it is joined.
            quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
            joined = ray.init(include_dashboard=False, runtime_env=own, **quiet)
            own = {}
            if verbose and (url := joined.dashboard_url):
                print(f"Ray's dashboard: http://{url}", flush=True)
        self._address = ray.get_runtime_context().gcs_address
        self._needs = _needs(options)
        gpus = self._needs.get("GPU", 0)
        environment = {
            **ONE_THREAD,
            "KERAS_BACKEND": keras.backend.backend(),
            **(SHARED_GPU if 0 < gpus < 1 else {}),
            # Nothing is shared that was not asked for.
            **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""}),
            **own.pop("env_vars", {}),
        }
        if not gpus and self._has().get("GPU"):
            warnings.warn(
                "The Ray cluster has GPUs, and trainings do not ask for any. Use "
                "resources={'num_gpus': 1}, or a share such as 0.25.",
                stacklevel=2,
            )
        options["runtime_env"] = {**own, "env_vars": environment}
        self._train = ray.remote(**options)(_train)
        board: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Board)
        self._board = board.remote()
        # In a list, Ray hands over the reference; workers fetch the data once.
        self._arguments = uuid.uuid4().hex, [ray.put(setup)], self._board
        self._sharing = Sharing(ray.put)
        self._numbers = itertools.count()
        self._running: dict[int, tuple[Task | None, Any]] = {}
        self._seen: dict[int, Seen] = {}
        # Also of what has ended: it may have begun again and be done in a moment.
        self._names: dict[int, str] = {}
        self._asked: Any = None
        self._count = 0
        self._counted = self._answered = self._stalled = time.monotonic()
        self._told = False

    @property
    def count(self) -> int:
        """How many trainings the cluster has room for now."""
        stale = not self._count or time.monotonic() - self._counted > 1
        # Ray would wait for a lost head, and end this process after a minute.
        if stale and self._answers():
            self._counted = time.monotonic()
            has = self._has()
            fits = [has.get(name, 0) // need for name, need in self._needs.items()]
            self._count = int(min(fits, default=1))
        return max(1, self._count)

    @property
    def most(self) -> int:
        """Twice as many: half wait in Ray's queue, where an autoscaler sees them."""
        return 2 * self.count

    def submit(self, task: Task | None) -> "Future[Any]":
        """Begins a training; the future raises RuntimeError if Ray gives it up."""
        number = next(self._numbers)
        pickled, arrays = self._sharing.dumps(task)
        reference = self._train.remote(*self._arguments, number, pickled, arrays)
        self._running[number] = task, reference
        if task is not None:
            self._names[number] = str(task)
        mine: Future[Any] = Future()
        reference.future().add_done_callback(partial(self._ended, number, mine))
        return mine

    def _ended(self, number: int, mine: "Future[Any]", future: "Future[Any]") -> None:
        task, _ = self._running.pop(number, (None, None))
        try:
            result = future.result()
        except Exception as error:
            places = self._seen[number][1] if number in self._seen else ["no machine"]
            reason = str(error).strip().splitlines() or [type(error).__name__]
            what = "A worker's start" if task is None else f"The training of {task}"
            mine.set_exception(
                RuntimeError(
                    f"{what} was given up by Ray, last on {places[-1]}: {reason[0]} "
                    "What was finished is stored: run again to go on."
                )
            )
            return
        mine.set_result(_copied(result))

    def look(self) -> dict[Task, Reached]:
        """The progress of the tasks that are being trained.

        Warns if a training begins again, or if none can begin with the cluster's
        resources.

        Raises:
            RuntimeError: if the head of the cluster is lost.
        """
        self._check_head()
        if self._asked is None:
            self._asked = self._board.seen.remote()
        done, _ = self._ray.wait([self._asked], timeout=0)
        if done:
            asked, self._asked = self._asked, None
            before = self._seen
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._seen = self._ray.get(asked)
            self._warn_of_losses(before)
        running = dict(self._running)
        if not running or any(number in self._seen for number in running):
            self._stalled, self._told = time.monotonic(), False
        elif time.monotonic() - self._stalled > PATIENCE and not self._told:
            self._told = True
            warnings.warn(self._waiting(), stacklevel=5)
        return {
            task: self._seen[number][0]
            for number, (task, _) in running.items()
            if task is not None and number in self._seen
        }

    def _warn_of_losses(self, before: dict[int, Seen]) -> None:
        """Warns of trainings that have begun again since the last look."""
        for number, (_, places) in self._seen.items():
            known = len(before[number][1]) if number in before else 1
            name = self._names.get(number)
            if len(places) > known and name is not None:
                warnings.warn(
                    f"The training of {name} was lost with {places[-2]}. Ray begins it "
                    f"again on {places[-1]}.",
                    stacklevel=6,
                )

    def _waiting(self) -> str:
        has = {k: v for k, v in self._has().items() if not k.startswith("node:")}
        return (
            f"No training has begun for {PATIENCE:.0f} s. Each asks for {self._needs}; "
            f"the Ray cluster has {has}, in all. The search waits, for workers that "
            "start or for machines; change `resources` if none are to come."
        )

    def _check_head(self) -> None:
        if self._answers() or time.monotonic() - self._answered < LOST:
            return
        self._running.clear()
        # Otherwise Ray ends this process in a minute, in which it says nothing else.
        self._ray.shutdown()
        raise RuntimeError(
            f"The head of the Ray cluster at {self._address} has not answered for "
            f"{LOST:.0f} s. What was finished is stored: start the cluster, and run "
            "again to go on."
        )

    def _answers(self) -> bool:
        """Whether the head of the cluster answers."""
        host, port = self._address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
        except OSError:
            return False
        self._answered = time.monotonic()
        return True

    def _has(self) -> dict[str, float]:
        return self._ray.cluster_resources()

    def close(self) -> None:
        """Ends all trainings, and the cluster if it was started for them."""
        for _, reference in list(self._running.values()):
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        if self._started:
            self._ray.shutdown()


def _needs(options: Mapping[str, Any]) -> dict[str, float]:
    """The resources that a task asks for, by Ray's names of them."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    needs = {names[name]: options[name] for name in names if options.get(name)}
    return needs | dict(options.get("resources") or {})


def _train(
    key: str,
    setup: list[Any],
    board: Any,
    number: int,
    pickled: bytes,
    arrays: list[Any],
) -> Any:
    import ray

    node = ray.get_runtime_context().get_node_id()
    place = f"process {os.getpid()} of {socket.gethostname()} ({node})"

    def report(reached: Reached) -> Any:
        return board.note.remote(number, reached, place)

    # Waited for: a worker that dies in a moment would take an unsent note with it.
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(report(Reached()), timeout=10)
    return train(
        key,
        lambda: ray.get(setup[0]),
        lambda: loads(pickled, ray.get(arrays)),
        report,
    )


class _Board:
    """Where workers note their progress, for the process that asks for it."""

    def __init__(self) -> None:
        self._seen: dict[int, Seen] = {}

    def note(self, number: int, reached: Reached, place: str) -> None:
        """Notes the progress of a task, and where it is trained."""
        _, places = self._seen.get(number, (reached, []))
        places = places if place in places else [*places, place]
        self._seen[number] = reached, places

    def seen(self) -> dict[int, Seen]:
        """The last note on each task."""
        return self._seen


def _copied(result: Any) -> Any:
    """Copies a result out of Ray's memory, which it would otherwise keep occupied."""
    if not isinstance(result, Outcome):
        return result
    if isinstance(result.result, FloatingPointError):
        return result

    def copied(state: State) -> State:
        return {name: np.array(array) for name, array in state.items()}

    training = result.result
    states = {step: copied(state) for step, state in training.passed.items()}
    own = dataclasses.replace(
        training,
        final=copied(training.final),
        rewind_point=copied(training.rewind_point),
        passed=states,
    )
    return result._replace(result=own)
