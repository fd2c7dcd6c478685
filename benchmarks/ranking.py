"""The cost of global pruning, compared with one `np.partition` of the scores.

    python benchmarks/ranking.py [--millions 10] [--rounds 5] [--json ranking.json]

Both take turns, and ratios are those of neighbouring runs. The ratio of times is that
of pruning to `np.partition`. The ratio of memory is the peak of everything that NumPy
and Python hold while a network is pruned, including the scores and the masks before and
after, to the size of the float32 scores. With `--millions 100`, the ratio of times
should stay below 2, and that of memory below 3.
"""

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_lottery.masks import Masks
from keras_lottery.tables import text_table
from keras_lottery.tickets.allocation import Global, Scores

LAYERS = 50
# The share alive before, the sparsity after, and the number of different scores.
CASES = {
    "one layer": (1, 1.0, 0.8, None),
    "dense": (LAYERS, 1.0, 0.2, None),
    "half alive": (LAYERS, 0.5, 0.6, None),
    "a tenth alive": (LAYERS, 0.1, 0.92, None),
    "tied scores": (LAYERS, 1.0, 0.8, 16),
    "all scores tied": (LAYERS, 1.0, 0.8, 1),
}


def network(
    size: int, layers: int, alive: float, values: int | None
) -> tuple[Scores, Masks]:
    """Scores in float32, and masks of random positions."""
    rng = np.random.default_rng(0)
    scores, masks = {}, {}
    for i in range(layers):
        scores[f"layer{i}/kernel"] = score = np.empty((size // layers // 100, 100), "f")
        rng.random(out=score, dtype="f")
        if values:
            np.floor(score * values, out=score)
        masks[f"layer{i}/kernel"] = rng.random(score.shape, "f") < alive
    return scores, Masks(masks)


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def time_ratios(
    scores: Scores, masks: Masks, sparsity: float, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of one `np.partition`, and of pruning."""
    flat = np.concatenate([score.ravel() for score in scores.values()])
    threshold = round(sparsity * flat.size)
    pairs = [
        (
            seconds(lambda: np.partition(flat, threshold)),
            seconds(lambda: Global()(scores, masks, sparsity)),
        )
        for _ in range(rounds + 1)
    ]
    # The first round warms up.
    return [a for a, _ in pairs[1:]], [b for _, b in pairs[1:]]


def memory_ratio(scores: Scores, masks: Masks, sparsity: float) -> float:
    """The peak memory divided by the size of the scores."""
    held = sum(array.nbytes for array in (*scores.values(), *masks.values()))
    tracemalloc.start()
    Global()(scores, masks, sparsity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (held + peak) / sum(score.nbytes for score in scores.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=10, help="of weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    results = {}
    print(f"{options.millions} million weights, {options.rounds} rounds")
    lines = []
    for name, (layers, alive, sparsity, values) in CASES.items():
        scores, masks = network(options.millions * 10**6, layers, alive, values)
        base, ours = time_ratios(scores, masks, sparsity, options.rounds)
        ratios = sorted(b / a for a, b in zip(base, ours, strict=True))
        memory = memory_ratio(scores, masks, sparsity)
        results[name] = {
            "partition_seconds": base,
            "pruning_seconds": ours,
            "time_ratio": statistics.median(ratios),
            "memory_ratio": memory,
        }
        spread = (
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
        seconds = f"{statistics.median(base):.3f}"
        lines.append([name, seconds, spread, f"{memory:.2f}"])
    header = ["case", "partition, s", "time ratio (range)", "memory"]
    print(text_table(lines, header))
    if options.json:
        figures = {"weights": options.millions * 10**6, "cases": results}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
