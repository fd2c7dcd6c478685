"""What trainings side by side cost beside the training.

    python benchmarks/cluster.py busy      # two processes, one replicate, two controls
    python benchmarks/cluster.py memory    # of the driver, by level
    python benchmarks/cluster.py driver    # its seconds for each training

Each prints its figures. `busy`, `memory` and `driver` train for moments: they are about
what happens around the trainings.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import psutil

import keras_lottery as kl
from keras_lottery.search.trainings import Trainings

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
    """The share of two processes' time that is training or starting: 13 trainings."""
    x, y = arrays(20_000)
    search = kl.LotteryTicketSearch(
        network(300),
        kl.schedules.geometric(0.5, 4),
        controls=["reinit", "shuffle"],
        engine="fused",
        workers=2,
        directory=folder / "run",
    )
    watched = _watch(search)
    began = time.perf_counter()
    table = search.search(
        x, y, validation_data=(x[:500], y[:500]), steps=8_000, batch_size=60, verbose=0
    )
    wall = time.perf_counter() - began
    first = watched[0]
    training = table["seconds"].sum()
    print(
        f"{len(table)} trainings of {table['seconds'].median():.1f} s: {wall:.0f} s in "
        f"all, {wall - first:.0f} s from the first training on, of which two processes "
        f"trained {100 * training / 2 / (wall - first):.0f} %"
    )


def _watch(search: kl.LotteryTicketSearch) -> list[float]:
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
    """The processor time of the driver for each training that workers do."""
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
    """The function, whose processor time at the beginning and end is noted."""

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["busy", "memory", "driver"])
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as folder:
        {"busy": busy, "memory": memory, "driver": driver}[what](Path(folder))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
