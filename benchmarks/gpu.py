"""Many masked LeNet-300-100 at once on an accelerator, against one by Keras's `fit`.

    python benchmarks/gpu.py [--nets 20] [--steps 1000] [--rounds 5] [--json gpu.json]

Runs on JAX and needs no TensorFlow. Prints net-steps per second of `vectorized` (one
step of 20 nets is 20 net-steps; random data of MNIST's size), and of `fused` and `fit`
with one net: medians and spreads of interleaved runs. Also prints how long the paper's
Figure 4 would take: 5 trials of 26 levels, each with 3 reinitialisations, of 50,000
steps.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import jax
import keras
import numpy as np

import keras_lottery as kl
from keras_lottery.engines import Engine, Task, make
from keras_lottery.engines.data import Data
from keras_lottery.masks import Masks
from keras_lottery.tables import text_table
from keras_lottery.tickets import Ticket

TRAININGS = 5 * (1 + 25 * 4)
LENGTH = 50_000


def data() -> Data:
    rng = np.random.default_rng(0)
    parts = [
        (rng.random((n, 28, 28, 1), np.float32), rng.integers(0, 10, n))
        for n in (55_000, 5_000, 10_000)
    ]
    return Data(*parts, batch_size=60)


def engine(name: str, of: Data, steps: int) -> Engine:
    model = kl.mask_model(kl.models.lenet_300_100())
    model.compile(
        keras.optimizers.Adam(1.2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return make(name, model, of, steps, eval_freq=steps)


def tickets(model: keras.Model, count: int, steps: int) -> list[Task]:
    """Tickets of several densities, each with its own order of the data."""
    rng = np.random.default_rng(0)
    state, masks = kl.get_state(model), kl.get_masks(model)
    tasks = []
    for seed in range(count):
        density = 0.8 ** (seed % 15)
        drawn = {name: rng.random(m.shape) < density for name, m in masks.items()}
        tasks.append(Task(Ticket(Masks(drawn), state, 0, steps), seed))
    return tasks


def contender(name: str, count: int, of: Data, steps: int) -> Callable[[], float]:
    """A function that trains some nets, and returns net-steps per second."""
    trains = engine(name, of, steps)
    tasks = tickets(trains.model, count, steps)

    def run() -> float:
        results = [done.result for done in trains.train_all(tasks[:])]
        for result in results:
            if isinstance(result, FloatingPointError):
                raise result
        return count * steps / sum(result.metrics["seconds"] for result in results)

    run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    of = data()
    runs = {
        "fit, 1 net": contender("fit", 1, of, options.steps),
        "fused, 1 net": contender("fused", 1, of, options.steps),
        f"vectorized, {options.nets} nets": contender(
            "vectorized", options.nets, of, options.steps
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    walls: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            rates[name].append(run())
            walls[name].append(time.perf_counter() - began)
    print(f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} processors")
    rows = []
    first = statistics.median(rates["fit, 1 net"])
    for name, values in rates.items():
        count = options.nets if name.startswith("vectorized") else 1
        middle = statistics.median(values)
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        whole = count * options.steps / statistics.median(walls[name])
        ratio = f"{middle / first:.1f}"
        rows.append([name, f"{middle:,.0f}", spread, ratio, f"{whole:,.0f}"])
    header = ["engine", "net-steps/s", "spread", "ratio", "with judging"]
    print(text_table(rows, header))
    hours = TRAININGS * LENGTH / middle / 3600
    print(
        f"Figure 4, {TRAININGS} trainings of {LENGTH:,} steps at that rate: "
        f"{hours:.2f} hours, validation apart"
    )
    if options.json:
        report = {
            "device": jax.devices()[0].device_kind,
            "nets": options.nets,
            "steps": options.steps,
            "net_steps_per_second": rates,
            "seconds_with_judging": walls,
        }
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
