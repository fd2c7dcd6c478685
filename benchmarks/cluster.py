"""The overhead of running trainings side by side.

    python benchmarks/cluster.py busy      # two processes, one replicate, two controls
    python benchmarks/cluster.py memory    # of the driver, by level
    python benchmarks/cluster.py driver    # its seconds for each training
    python benchmarks/cluster.py kills     # two Ray nodes, of which things are killed
    python benchmarks/cluster.py jobs      # 8 processes in one directory, 20 kills

Each prints its figures. The trainings are very short, because the overhead around them
is what is measured. `kills` runs a search of 60 trainings on a Ray cluster of two
nodes, and kills a worker, a node, the driver and the head in the middle of it, each in
a run of its own.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import psutil

import keras_lottery as kl
from keras_lottery.search.trainings import Trainings
from keras_lottery.search.workers.processes import Processes

MEGABYTE = 2**20


def network(units: int, layers: int = 2) -> Callable[[], keras.Model]:
    """A function that builds a net of dense layers, compiled."""

    def build() -> keras.Model:
        hidden = [keras.layers.Dense(units, "relu") for _ in range(layers)]
        model = keras.Sequential(
            [keras.Input((64,)), *hidden, keras.layers.Dense(10, name="out")]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return model

    return build


def arrays(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels that nothing can be learned from."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 64)).astype("float32")
    return x, rng.integers(10, size=examples)


def busy(folder: Path) -> None:
    """The share of time in which two processes have work, and train: 13 trainings."""
    x, y = arrays(20_000)
    search = kl.LotteryTicketSearch(
        network(300),
        kl.schedules.geometric(0.5, 4),
        controls=["reinit", "shuffle"],
        engine="fused",
        workers=2,
        directory=folder / "run",
    )
    watched, changes = _watch(), _handed_over()
    began = time.perf_counter()
    table = search.search(
        x, y, validation_data=(x[:500], y[:500]), steps=8_000, batch_size=60, verbose=0
    )
    wall = time.perf_counter() - began
    first = watched[0]
    training = table["seconds"].sum()
    both = sum(until - at for at, n, until in changes if n >= 2)
    print(
        f"{len(table)} trainings of {table['seconds'].median():.1f} s: {wall:.0f} s in "
        f"all, {wall - first:.0f} s from the first training on; in "
        f"{100 * both / (wall - first):.0f} % of them both processes had a training, "
        f"and {100 * training / 2 / (wall - first):.0f} % of their time were steps"
    )


def _handed_over() -> list[list[float]]:
    """Records how many trainings the workers had, and from when until when."""
    real, changes, lock = Processes.submit, [], threading.Lock()

    def change(by: int) -> None:
        with lock:
            now = time.perf_counter()
            if changes:
                changes[-1][2] = now
            changes.append([now, by + (changes[-1][1] if changes else 0), now])

    def submit(self: Processes, task: Any) -> Any:
        future = real(self, task)
        if task is not None:
            change(1)
            future.add_done_callback(lambda _: change(-1))
        return future

    Processes.submit = submit  # type: ignore[method-assign]
    return changes


def _watch() -> list[float]:
    """When the trainings began, in seconds from now: after the workers' start."""
    began, real, seen = time.perf_counter(), Trainings.run, []

    def run(self: Trainings, replicates: object) -> None:
        seen.append(time.perf_counter() - began)
        real(self, replicates)

    Trainings.run = run  # type: ignore[method-assign, assignment]
    return seen


def memory(folder: Path) -> None:
    """The driver's memory at each level, for a net of 20 MB."""
    build = network(2236, 2)
    size = build().count_params() * 4 / MEGABYTE
    x, y = arrays(200)
    used: dict[int, float] = {}
    process = psutil.Process()
    real = Trainings._write

    def write(self: Trainings, task, facts, training):  # type: ignore[no-untyped-def]
        used[task.which.level] = process.memory_info().rss / MEGABYTE
        return real(self, task, facts, training)

    Trainings._write = write  # type: ignore[method-assign]
    search = kl.LotteryTicketSearch(
        build,
        kl.schedules.geometric(0.05, 60),
        controls=["reinit"],
        engine="fit",
        workers=1,
        directory=folder / "run",
    )
    data = {"validation_data": (x, y), "steps": 1, "batch_size": 50, "verbose": 0}
    search.search(x, y, **data)
    shown = {level: round(used[level]) for level in (1, 5, 20, 40, 60)}
    more = (used[60] - used[5]) / size
    print(f"a net of {size:.0f} MiB; driver's memory by level, MiB: {shown}; level 60 "
          f"holds {more:.1f} networks more than level 5")  # fmt: skip


def driver(folder: Path) -> None:
    """The CPU time of the driver for each training that workers do."""
    x, y = arrays(200)
    for name, build in (("LeNet-300-100", network(300)), ("ResNet-56", resnet)):
        shape = {"LeNet-300-100": (64,), "ResNet-56": (32, 32, 3)}[name]
        inputs = np.zeros((200, *shape), "float32") if name == "ResNet-56" else x
        search = kl.LotteryTicketSearch(
            build,
            kl.schedules.geometric(0.2, 5),
            controls={"reinit": 3},
            replicates=1,
            engine="fit",
            workers=1,
            directory=folder / name,
        )
        began: list[float] = []
        real = Trainings.run

        Trainings.run = _timed(real, began)  # type: ignore[method-assign]
        data = {"validation_data": (inputs[:20], y[:20]), "steps": 1, "verbose": 0}
        table = search.search(inputs, y, batch_size=20, **data)
        Trainings.run = real  # type: ignore[method-assign]
        each = 1000 * (began[1] - began[0]) / len(table)
        print(f"{name}: {each:.0f} ms of the driver's time for each of {len(table)}")


def _timed(real: Callable[..., None], times: list[float]) -> Callable[..., None]:
    """Wraps a function so that the CPU time at its beginning and end is recorded."""

    def run(*given: object) -> None:
        times.append(time.process_time())
        real(*given)
        times.append(time.process_time())

    return run


def resnet() -> keras.Model:
    """A ResNet-56, compiled."""
    model = kl.models.resnet_56((32, 32, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


HALF = 30
"""How many of the 60 trainings are stored when something is killed."""


def kills(folder: Path) -> None:
    """Whether a search on a Ray cluster has the same results, whatever is killed."""
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    whole = folder / "whole"
    with _cluster() as cluster, _driver(cluster, whole) as driver:
        print(f"nothing killed: {_ended(driver, whole)}", flush=True)
    table = _table(whole)
    for what, kill in (
        ("a worker", _kill_worker),
        ("a node", _kill_node),
        ("the driver", _kill_driver),
        ("the head", _kill_head),
    ):
        run = folder / what.replace(" ", "_")
        with _cluster() as cluster, _driver(cluster, run) as driver:
            while len(_stored(run)) < HALF:
                assert driver.poll() is None, _said(run)
                time.sleep(0.1)
            kill(cluster, driver)
            print(f"{what} killed: {_ended(driver, run)}", flush=True)
        if driver.returncode:
            with _cluster() as cluster, _driver(cluster, run) as driver:
                print(f"    run again: {_ended(driver, run)}", flush=True)
        pd.testing.assert_frame_equal(_table(run), table, check_exact=True)
        print("    the table is the same, to the bit", flush=True)


def drive(folder: Path) -> None:
    """The search of `kills`: 60 trainings."""
    x, y = arrays(2_000)
    search = kl.LotteryTicketSearch(
        network(100),
        kl.schedules.geometric(0.2, 7),
        replicates=4,
        engine="fused",
        workers="ray",
        directory=folder,
    )
    data = {"validation_data": (x[:500], y[:500]), "steps": 1_000, "batch_size": 60}
    search.search(x, y, **data)


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Two nodes of one processor each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@contextlib.contextmanager
def _driver(cluster: Any, folder: Path) -> Iterator[subprocess.Popen]:
    """Starts the process of the search, with its output in a file by the directory."""
    command = [sys.executable, __file__, "drive", str(folder)]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    with open(f"{folder}.txt", "wb") as said:
        how = {"stdout": said, "stderr": said, "env": environment}
        driver = subprocess.Popen(command, **how)
    yield driver
    driver.kill()


def _ended(driver: subprocess.Popen, folder: Path) -> str:
    """Waits for the driver's end, and returns how it ended."""
    began, stored = time.perf_counter(), len(_stored(folder))
    code = driver.wait()
    seconds = time.perf_counter() - began
    last = f". It said: {_said(folder)}" if code > 0 else ""
    return (
        f"with {stored} trainings stored; the driver ended {seconds:.0f} s later with "
        f"{len(_stored(folder))} and the exit status {code}{last}"
    )


def _stored(folder: Path) -> list[Path]:
    return list(folder.glob("replicate_*/level_*/*.safetensors"))


def _said(folder: Path) -> str:
    return Path(f"{folder}.txt").read_text().strip().rpartition("\n")[2]


def _table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv").drop(columns="seconds")


def _kill_worker(cluster: Any, driver: subprocess.Popen) -> None:
    for node in cluster.list_all_nodes():
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):
            if process.cmdline()[:1] == ["ray::_train"]:
                process.kill()
                return
    raise RuntimeError("no worker trains")


def _kill_node(cluster: Any, driver: subprocess.Popen) -> None:
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)


def _kill_driver(cluster: Any, driver: subprocess.Popen) -> None:
    driver.kill()


def _kill_head(cluster: Any, driver: subprocess.Popen) -> None:
    cluster.remove_node(cluster.head_node, allow_graceful=False)


def jobs(folder: Path, kills: int = 20, replicates: int = 8) -> None:
    """Jobs of a cluster in one directory, killed at random and started again."""
    script = Path(__file__).parents[1] / "scripts" / "find_ticket.py"
    how = f"--epochs 10 --levels 3 --replicates {replicates} --engine fused --workers 0"
    command = [sys.executable, str(script), *how.split(), "--export", "none"]
    command += ["--verbose", "0", "--directory"]
    subprocess.run([*command, str(folder / "whole")], check=True)
    shared = folder / "shared"
    began, rng = time.perf_counter(), random.Random(0)

    def start(replicate: int) -> subprocess.Popen:
        return subprocess.Popen([*command, str(shared), "--replicate", str(replicate)])

    running = [start(replicate) for replicate in range(replicates)]
    killed = restarted = 0
    while killed < kills:
        time.sleep(rng.uniform(0, 2))
        # Only jobs that train are killed: most of the time, jobs import TensorFlow.
        holders = [
            shared / ".locks" / f"replicate_{r}.holder" for r in range(replicates)
        ]
        busy = [
            r
            for r, holder in enumerate(holders)
            if running[r].poll() is None
            and holder.exists()
            and holder.read_text().endswith(f" {running[r].pid}")
        ]
        if busy:
            replicate = rng.choice(busy)
            running[replicate].kill()
            running[replicate].wait()
            killed += 1
        elif all(job.poll() is not None for job in running):
            # If all have ended, the next kill needs a training that is left to do.
            replicate = rng.randrange(replicates)
            for path in sorted(shared.glob(f"replicate_{replicate}/level_*/*"))[2:]:
                path.unlink()
            restarted += 1
        else:
            continue
        running[replicate] = start(replicate)
    if any(job.wait() for job in running):
        raise RuntimeError("a job failed")
    seconds = time.perf_counter() - began
    table = _table(shared)
    pd.testing.assert_frame_equal(_table(folder / "whole"), table, check_exact=True)
    print(
        f"{replicates} processes in one directory, {killed} killed while they trained, "
        f"{restarted} times with results removed as all had ended: {len(table)} "
        f"trainings in {seconds:.0f} s, the table equal to one process's to the bit"
    )


BENCHMARKS = {
    "busy": busy,
    "memory": memory,
    "driver": driver,
    "kills": kills,
    "jobs": jobs,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*BENCHMARKS, "drive"])
    parser.add_argument("folder", nargs="?", type=Path, help="of `drive` alone")
    given = parser.parse_args()
    if given.what == "drive":
        drive(given.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        BENCHMARKS[given.what](Path(folder))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
