"""How much slower a masked LeNet-300-100 trains than the plain one, by `model.fit`.

    python benchmarks/masked_overhead.py [--pairs 15] [--steps 300]

Plain and masked epochs take turns; the figures are the medians of the pairs' ratios,
for Keras's default settings and for those of the recipe (`jit_compile`, 100 steps per
execution).
"""

import argparse
import statistics
import time

import keras
import numpy as np

import keras_lottery as kl


def compiled(model: keras.Model, **settings: object) -> keras.Model:
    model.compile(
        keras.optimizers.Adam(1.2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **settings,
    )
    return model


def rate(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Steps per second of one epoch."""
    began = time.perf_counter()
    model.fit(x, y, batch_size=60, verbose=0)
    return len(x) / 60 / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.random((60 * options.steps, 28, 28, 1), dtype=np.float32)
    y = rng.integers(0, 10, len(x))
    for name, settings in {
        "defaults": {},
        "recipe": {"jit_compile": True, "steps_per_execution": 100},
    }.items():
        dense = kl.models.lenet_300_100()
        plain = compiled(dense, **settings)
        masked = compiled(kl.mask_model(dense), **settings)
        for model in (plain, masked):
            rate(model, x, y)
        pairs = [(rate(plain, x, y), rate(masked, x, y)) for _ in range(options.pairs)]
        ratios = sorted(b / a for a, b in pairs)
        print(
            f"{name}: masked / plain {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {len(pairs)} pairs); "
            f"plain {statistics.median(a for a, _ in pairs):.0f} steps/s"
        )


if __name__ == "__main__":
    main()
