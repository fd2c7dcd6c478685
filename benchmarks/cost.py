"""Estimates the cost of studies of large networks, and how long they wait for machines.

    python benchmarks/cost.py studies [--devices 2e10 5e13]
    python benchmarks/cost.py schedule [--replicates 100] [--nodes 8 32 128]

`studies` measures how many floating-point operations per second a training step does on
this machine. From this rate, and from others, it computes how long a search for tickets
of a ResNet-50 on ImageNet and of a transformer of 100 million weights would take.
`schedule` simulates replicates on nodes that fail, by the rule of
`search/trainings.py`: a level waits for the first training of the level before, and a
free node takes any training that may begin. Its figures are means of 20 simulations.
"""

import argparse
import heapq
import itertools
import os
import random
import statistics
from collections import deque
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

BACKWARD = 2
"""The cost of a backward pass in forward passes, by the usual estimate."""


@dataclass(frozen=True)
class Network:
    """A network and the length of its training.

    Args:
        name: its name in words.
        weights: the number of its weights.
        forward: the floating-point operations for an example (or a token).
        examples: the number of examples in a training.
        batch_size: examples in a step.
    """

    name: str
    weights: float
    forward: float
    examples: float
    batch_size: float

    @property
    def operations(self) -> float:
        """The floating-point operations of a whole training."""
        return (1 + BACKWARD) * self.forward * self.examples


# Multiply-adds of 224x224 images, times two; 90 epochs.
RESNET_50 = Network("ResNet-50, ImageNet", 25.6e6, 2 * 4.1e9, 90 * 1_281_167, 256)
# Twice its weights for each token; 20 tokens for each weight (Hoffmann et al. 2022).
TRANSFORMER = Network("transformer, 2 billion tokens", 1e8, 2e8, 2e9, 250_000)


def rate(steps: int = 40) -> float:
    """The operations per second of this machine when it trains a narrow ResNet-8."""
    import keras
    import numpy as np

    import keras_lottery as kl
    from keras_lottery.engines import make
    from keras_lottery.engines.data import Data
    from keras_lottery.structured import multiply_adds

    model = kl.mask_model(kl.models.resnet(8, (16, 16, 3), width=8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, 0.9), loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, y = rng.random((1280, 16, 16, 3), np.float32), rng.integers(0, 10, 1280)
    engine = make("fused", model, Data((x, y), (x, y), batch_size=128), 2 * steps)
    ticket = kl.Ticket(kl.get_masks(model), kl.get_state(model), steps=2 * steps)
    seconds = min(engine.seconds_per_step(ticket, steps) for _ in range(3))
    return (1 + BACKWARD) * 2 * multiply_adds(model) * 128 / seconds


def studies(options: argparse.Namespace) -> None:
    measured = rate()
    print(f"this machine: {measured / 1e9:.1f} billion operations a second\n")
    each = 1 + (1 + options.controls) * options.levels
    trainings = options.replicates * each
    heads = [f"hours of a training at {r:.1e}" for r in (measured, *options.devices)]
    print(f"| network | steps | {' | '.join(heads)} | of all {trainings} trainings at "
          f"{options.devices[-1]:.1e} | memory, GB | stored, GB |")  # fmt: skip
    print("|---" * (len(heads) + 5) + "|")
    for network in (RESNET_50, TRANSFORMER):
        hours = [network.operations / r / 3600 for r in (measured, *options.devices)]
        # Weights, gradients, momentum in float32, and a byte for each mask.
        memory = network.weights * (3 * 4 + 1) / 1e9
        # The last weights of each ticket and its masks in bits; controls leave none.
        kept = options.replicates * (1 + options.levels)
        stored = kept * network.weights * (4 + 1 / 8) / 1e9
        cells = [f"{h:,.0f}" if h >= 10 else f"{h:.1f}" for h in hours]
        print(f"| {network.name} | {network.examples / network.batch_size:,.0f} | "
              f"{' | '.join(cells)} | {trainings * hours[-1]:,.0f} | "
              f"{memory:.1f} and activations | {stored:.0f} |")  # fmt: skip


def schedule(options: argparse.Namespace) -> None:
    print("| nodes | checkpoint | days | busy | lost, of the work |")
    print("|---|---|---|---|---|")
    for nodes, every in itertools.product(options.nodes, (0.0, options.checkpoint)):
        found = [simulate(options, nodes, every, seed) for seed in range(20)]
        days, busy, lost = map(statistics.mean, zip(*found, strict=True))
        name = f"every {every:g} h" if every else "none"
        print(f"| {nodes} | {name} | {days:.1f} | {busy:.0%} | {lost:.1%} |")


def simulate(
    options: argparse.Namespace, nodes: int, every: float, seed: int
) -> tuple[float, float, float]:
    """Simulates replicates on nodes that fail and come back.

    Args:
        options: hours of a training, between failures of a node, and of its repair.
        nodes: the number of nodes, each of which trains one network at a time.
        every: hours from one stored state of a training to the next, 0 for none.
        seed: the seed of the failures.

    Returns:
        The days until everything is done, the share of the nodes' time in which they
        trained, and the share of the work that was done twice.
    """
    rng = random.Random(seed)
    begun, waiting = 0, deque[tuple[int, int, bool, float]]()

    def level(replicate: int, number: int) -> None:
        controls = options.controls if number else 0
        # The first one is waited for: it goes out first.
        waiting.append((replicate, number, True, options.hours))
        waiting.extend([(replicate, number, False, options.hours)] * controls)

    events: list[tuple[float, int, int]] = []  # time, order, node
    order, now, trained, lost, free = (
        itertools.count(),
        0.0,
        0.0,
        0.0,
        list(range(nodes)),
    )
    running: dict[int, tuple[tuple[int, int, bool, float], float, bool]] = {}
    while True:
        while free:
            if not waiting and begun < options.replicates:
                level(begun, 0)
                begun += 1
            if not waiting:
                break
            task, node = waiting.popleft(), free.pop()
            failure = rng.expovariate(1 / options.between_failures)
            ends = failure >= task[3]
            running[node] = task, now, ends
            heapq.heappush(events, (now + min(failure, task[3]), next(order), node))
        if not events:
            break
        now, _, node = heapq.heappop(events)
        if node not in running:  # It is repaired.
            free.append(node)
            continue
        (replicate, number, is_first, left), since, ended = running.pop(node)
        trained += now - since
        if ended:
            free.append(node)
            if is_first and number < options.levels:
                level(replicate, number + 1)
            continue
        kept = (now - since) // every * every if every else 0.0
        lost += now - since - kept
        waiting.appendleft((replicate, number, is_first, left - kept))
        heapq.heappush(events, (now + options.repair, next(order), node))
    return now / 24, trained / (nodes * now), lost / (trained - lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("studies", "schedule"))
    add = parser.add_argument
    add("--devices", type=float, nargs="+", default=[5e13, 2e14])
    add("--levels", type=int, default=15)
    add(
        "--controls", type=int, default=1, help="trainings of a level besides the first"
    )
    add("--replicates", type=int, help="default: 3 of a study, 100 of a schedule")
    add("--nodes", type=int, nargs="+", default=[8, 32, 128])
    add("--hours", type=float, default=6, help="of a training")
    add("--between-failures", type=float, default=72, help="hours, of one node")
    add("--repair", type=float, default=1, help="hours")
    add("--checkpoint", type=float, default=0.5, help="hours")
    options = parser.parse_args()
    options.replicates = (
        options.replicates or {"studies": 3, "schedule": 100}[options.part]
    )
    {"studies": studies, "schedule": schedule}[options.part](options)


if __name__ == "__main__":
    main()
