"""The cost of a step after filters are pruned, and of a whole search for such tickets.

    python benchmarks/filter_search.py [--models conv_2 resnet_20] [--masks]
    python benchmarks/filter_search.py --search [--levels 8] [--epochs 2]

The first form times a training step of the dense network, and of tickets with 50, 25
and 10 % of the filters that are trained as the smaller networks they are
(`compact=True`), and with `--masks` also as masked networks. They take turns in each
round, on random images; the figures are medians over the rounds, as shares of the dense
step. The second form runs the same search that prunes filters twice, also on random
images: with masks, and compacted.
"""

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np

import keras_lottery as kl
from keras_lottery.engines import Engine, make
from keras_lottery.engines.data import Data
from keras_lottery.masks import Masks
from keras_lottery.tickets import Ticket

LEFT = (0.5, 0.25, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["conv_2", "resnet_20"])
    add("--engine", default="fit")
    add("--batch-size", type=int, default=60)
    add("--steps", type=int, default=30, help="in each measurement (%(default)s)")
    add("--masks", action="store_true", help="time the tickets with masks, too")
    add("--rounds", type=int, default=3)
    add("--examples", type=int, default=1800)
    add("--search", action="store_true", help="run a whole search instead")
    add("--levels", type=int, default=8)
    add("--epochs", type=int, default=2)
    options = parser.parse_args()
    for name in options.models:
        (search if options.search else steps)(name, options)


def network(name: str) -> keras.Model:
    """A network for CIFAR-10, compiled as its paper does."""
    model = getattr(kl.models, name)(seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = kl.models.recipe(name).learning_rate
    optimizer = keras.optimizers.Adam(rate)
    if name.startswith("resnet"):
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    x = rng.random((count, 32, 32, 3), "float32")
    return x, rng.integers(0, 10, count)


def steps(name: str, options: argparse.Namespace) -> None:
    """Prints the time of a step, dense, with masks and compacted."""
    data = Data(images(options.examples), images(60), None, options.batch_size)
    model = kl.mask_model(network(name))
    shapes = {n: mask.shape for n, mask in kl.get_masks(model).items()}
    dense = Ticket(Masks.dense(shapes), kl.get_state(model), 0, 10**6)
    whole = make(options.engine, model, data, 10**6, compact=True)
    assert whole.compacted is not None
    runs: dict[str, tuple[Engine, Ticket]] = {"dense": (whole, dense)}
    for left in LEFT:
        kl.set_state(model, dense.weights, dense.masks)
        kl.prune(model, 1 - left, "l1", granularity="filter")
        masks = kl.get_masks(model)
        ticket = Ticket(masks, kl.get_state(model), 0, 10**6)
        part = whole.compacted.smaller.part(whole.compacted.smaller.kept(masks))
        small = make(options.engine, part.model, data, 10**6)
        if options.masks:
            runs[f"masks {left:.0%}"] = whole, ticket
        cut = Ticket(Masks(part.cut(masks)), part.cut(ticket.weights), 0, ticket.steps)
        runs[f"compact {left:.0%}"] = small, cut
    seconds: dict[str, list[float]] = {run: [] for run in runs}
    for _ in range(options.rounds):
        for run, (engine, ticket) in runs.items():
            seconds[run].append(engine.seconds_per_step(ticket, options.steps))
    print(
        f"{name}, batches of {options.batch_size}, engine={options.engine}, "
        f"{keras.backend.backend()}; medians of {options.rounds}"
    )
    for run, times in seconds.items():
        # Ratios are taken within a round, since the machine may slow down in between.
        ratios = [t / d for t, d in zip(times, seconds["dense"], strict=True)]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        middle = statistics.median
        now = f"{1000 * middle(times):8.1f} ms"
        print(f"  {run:12} {now}  {middle(ratios):.3f} {spread}")


def search(name: str, options: argparse.Namespace) -> None:
    """Prints the seconds of a search that prunes filters, with masks and compacted."""
    seconds: dict[Any, float] = {}
    for compact in (False, True):
        levels = kl.LotteryTicketSearch(
            network(name),
            kl.schedules.geometric(0.3, options.levels),
            criterion="l1",
            granularity="filter",
            controls=None,
            engine=options.engine,
            workers=0,
            compact=compact,
        )
        began = time.perf_counter()
        x, y = images(options.examples)
        levels.search(
            x,
            y,
            validation_data=images(60),
            batch_size=options.batch_size,
            epochs=options.epochs,
            verbose=0,
        )
        seconds[compact] = time.perf_counter() - began
    print(
        f"{name}: {options.levels} levels of {options.epochs} epochs of "
        f"{options.examples} images: {seconds[False]:.0f} s with masks, "
        f"{seconds[True]:.0f} s compacted, {seconds[True] / seconds[False]:.2f}"
    )


if __name__ == "__main__":
    main()
