"""Decides whether a search trains in workers, and in how many."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cloudpickle
import keras
import loky

from keras_lottery import checks
from keras_lottery.engines.distributed import is_distributed
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.fused import free_memory
from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.datasets import is_dataset
from keras_lottery.search.setup import Setup
from keras_lottery.search.store import Store
from keras_lottery.search.stored import Begun, read_checked
from keras_lottery.search.workers.pool import LOOK, Pool, Trainer, Workers
from keras_lottery.search.workers.processes import Processes
from keras_lottery.tickets import Ticket

WORTHWHILE = 60.0
"""Seconds of training from which on workers, which take some to start, pay."""
SEVERAL = 1000
RESOURCES = "a dictionary of what each training needs, such as {'num_gpus': 0.25}"
AMOUNTS = ("num_cpus", "num_gpus", "memory")
OPTIONS = (
    *AMOUNTS,
    "resources",
    "accelerator_type",
    "label_selector",
    "max_calls",
    "max_retries",
    "runtime_env",
    "scheduling_strategy",
)
"""Options of a task of Ray's that a user may give."""
AS_BEFORE = "as before"
"""Instead of a number of workers: there were some, and there have to be again."""


@contextlib.contextmanager
def employ(
    workers: int | str,
    engine: Engine,
    setup: Setup,
    ticket: Ticket,
    at_once: int,
    steps: int,
    resources: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> Iterator[Trainer]:
    """Provides what trains, as a context: the engine of this process, or workers.

    Args:
        workers: a number, 0 for none, `"auto"`, `"ray"`, or `AS_BEFORE`.
        engine: the engine of this process.
        setup: what workers build their engines from.
        ticket: one of the tickets to train, for timing a step.
        at_once: how many trainings of a level are independent.
        steps: the number of steps of all trainings together.
        resources: what each training needs of a Ray cluster.
        verbose: 0 hides the address of Ray's dashboard.

    Raises:
        ValueError: if the workers that were asked for are not available. For those that
            trained before, this may come from the first call of `train_all`.
    """
    count = workers
    if workers == "auto":
        count = _choose(engine, setup, ticket, at_once, steps)
    if not count:
        yield engine
        return
    with contextlib.ExitStack() as stack:
        obstacle = _obstacle(engine, setup)
        if obstacle is None:
            if count == AS_BEFORE:
                count = max(1, _most(setup, at_once))
            found = _pool(count, setup, resources, verbose)
            pool = stack.enter_context(contextlib.closing(found))
            if workers == AS_BEFORE:
                # They start with the first task: all trainings may be stored.
                yield Workers(engine, pool, lambda: _insist(_obstacle_there(pool)))
                return
            obstacle = _obstacle_there(pool)
            if obstacle is None:
                yield Workers(engine, pool)
                return
        if workers == AS_BEFORE:
            _insist(obstacle)
        message = f"workers={workers!r} is not possible: {obstacle}"
        if workers != "auto":
            raise ValueError(f"{message}. Use workers=0.")
        warnings.warn(f"{message}. This process trains alone.", stacklevel=4)
    yield engine


def _insist(obstacle: str | None) -> None:
    """Raises ValueError if workers cannot train on what they trained before."""
    if obstacle is not None:
        raise ValueError(
            "This search was trained in worker processes, and training in this "
            "process would give different results. Workers cannot be used now: "
            f"{obstacle}. Mend that, or choose another `directory`."
        )


def check_workers(
    workers: int | str, resources: Mapping[str, Any] | None = None
) -> None:
    """Raises ValueError if so many workers, or these resources, are impossible."""
    if isinstance(workers, str):
        checks.choice("workers", workers, ["auto", "ray"], "a number of processes")
    else:
        checks.count("workers", workers, 0, 4096, remedy="Or 'auto', or 'ray'.")
    if resources is None:
        return
    checks.instance("resources", resources, Mapping, RESOURCES)
    if workers != "ray":
        remedy = "Use workers='ray', or leave it out."
        checks.refuse("resources", "`None` without Ray", resources, remedy)
    for name, value in resources.items():
        checks.choice("a name in `resources`", name, OPTIONS)
        if name in AMOUNTS:
            checks.number(f"resources[{name!r}]", value, 0)
    for name, value in _mapping(resources, "resources").items():
        checks.number(f"resources['resources'][{name!r}]", value, 0)
    _mapping(resources, "runtime_env")
    for name, least in (("max_retries", -1), ("max_calls", 0)):
        if name in resources:
            checks.count(f"resources[{name!r}]", resources[name], least)


def _mapping(resources: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    form = "a dictionary, as in Ray"
    return checks.instance(
        f"resources[{name!r}]", resources.get(name, {}), Mapping, form
    )


def as_before(store: Store, engine: str, workers: int | str) -> tuple[str, int | str]:
    """The choice with which stored trainings began, in place of `"auto"`."""
    try:
        stored = read_checked(store.settings, Begun)
    except FileNotFoundError:
        return engine, workers
    if engine == "auto":
        engine = stored["engine"]
    if workers == "auto":
        # Each worker has one thread, so their number changes no result.
        workers = AS_BEFORE if stored["in_workers"] else 0
    return engine, workers


def _pool(
    count: int | str, setup: Setup, resources: Mapping[str, Any] | None, verbose: int
) -> Pool:
    if count != "ray":
        return Processes(setup, int(count))
    from keras_lottery.search.workers.ray_cluster import RayCluster

    return RayCluster(setup, resources or {}, verbose)


def _choose(
    engine: Engine, setup: Setup, ticket: Ticket, at_once: int, steps: int
) -> int:
    """The number of workers that pays for the time they take to start."""
    if _obstacle(engine, setup):
        return 0
    count = _most(setup, at_once)
    if count < 2 or engine.name == "vectorized" or current().on_accelerator():
        return 0
    # However slow a step is, so few of them are not worth starting workers for.
    if steps < SEVERAL or steps * engine.seconds_per_step(ticket) < WORTHWHILE:
        return 0
    return count


def _most(setup: Setup, at_once: int) -> int:
    """The largest number of workers that have something to do, and enough memory."""
    assert setup.data is not None
    count = min(loky.cpu_count(), at_once)
    if setup.engine == "fused":
        # Each worker has the data once, and some of it in transit.
        size = sum(a.nbytes for a in keras.tree.flatten(setup.data.parts))
        count = min(count, int(free_memory() // (2 * size + 1)))
    return count


def _obstacle(engine: Engine, setup: Setup) -> str | None:
    """The reason why other processes cannot train, or `None`."""
    if any(is_dataset(part) for part in engine.data.parts.values()):
        return "a `tf.data.Dataset` or `PyDataset` stays in its process"
    if is_distributed(engine.model):
        return "the training is distributed"
    try:
        cloudpickle.dumps(dataclasses.replace(setup, data=None))
    except Exception as error:
        return f"the model or a callback cannot be sent to a worker ({error!r})"
    return None


def _obstacle_there(pool: Pool) -> str | None:
    """The reason why workers cannot train, or `None`: only the workers can tell.

    All of them begin to build the model, but only the first one is waited for.
    """
    try:
        first, *_ = [pool.submit(None) for _ in range(pool.count)]
        while not wait([first], timeout=LOOK).done:
            pool.look()
        failure = first.result()
    except BrokenProcessPool:
        return f"a worker died as it started: is there memory for {pool.count}?"
    return failure and f"a worker cannot make the model:\n{failure.traceback}"
