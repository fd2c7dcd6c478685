"""How much do the weights trained by `fit` and by the fused engine differ, and why?

    [KERAS_BACKEND=jax] python benchmarks/agreement.py [--steps 200] [--cases adam ...]

Both train the same ticket on the same batches. Next to the largest difference of any
weight is that of two trainings by `fit` whose initial weights differ by one unit in the
last place: if the training itself amplifies rounding as much, no engine can agree
better. In mixed precision, XLA leaves out roundings between operations. The effect of
this alone is shown as well: the difference between `fit` with `jit_compile=True` and
`fit` without it and, in brackets, between the former and the fused engine.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from keras import layers, optimizers

import keras_lottery as kl
from keras_lottery.engines import make
from keras_lottery.engines.data import Data
from keras_lottery.keras_bridge.layers import get_state
from keras_lottery.tables import text_table
from keras_lottery.tickets import Ticket

Body = Callable[[], list[layers.Layer]]


def dense(**options: Any) -> list[layers.Layer]:
    return [
        layers.Flatten(),
        layers.Dense(64, "relu", **options),
        layers.Dense(32, "relu", **options),
        layers.Dense(10),
    ]


def normalised() -> list[layers.Layer]:
    normal = layers.BatchNormalization
    one, other = (
        layers.Dense(units, use_bias=False, name=f"dense_{units}") for units in (64, 32)
    )
    rest = [normal(), layers.ReLU(), layers.Dense(10)]
    return [layers.Flatten(), one, normal(), layers.ReLU(), other, *rest]


def convolutional() -> list[layers.Layer]:
    normal = layers.BatchNormalization
    return [
        layers.Conv2D(8, 3, use_bias=False),
        normal(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(10),
    ]


def penalised() -> list[layers.Layer]:
    return dense(kernel_regularizer=keras.regularizers.L1(1e-3))


def halving() -> optimizers.schedules.LearningRateSchedule:
    return optimizers.schedules.PiecewiseConstantDecay([50, 100], [0.1, 0.05, 0.02])


CASES: dict[str, tuple[Body, Callable[[], optimizers.Optimizer], str]] = {
    "SGD": (dense, lambda: optimizers.SGD(0.1), "float32"),
    "momentum": (dense, lambda: optimizers.SGD(0.05, momentum=0.9), "float32"),
    "Adam": (dense, lambda: optimizers.Adam(1e-3), "float32"),
    "AdamW, clipnorm": (
        dense,
        lambda: optimizers.AdamW(1e-3, weight_decay=0.01, clipnorm=1.0),
        "float32",
    ),
    "RMSprop": (dense, lambda: optimizers.RMSprop(1e-3), "float32"),
    "moving averages": (dense, lambda: optimizers.Adam(1e-3, use_ema=True), "float32"),
    "accumulation": (
        dense,
        lambda: optimizers.Adam(1e-3, gradient_accumulation_steps=4),
        "float32",
    ),
    "L1, clipnorm": (penalised, lambda: optimizers.SGD(0.1, clipnorm=0.3), "float32"),
    "Muon": (dense, lambda: optimizers.Muon(1e-3), "float32"),
    "schedule, SGD": (dense, lambda: optimizers.SGD(halving()), "float32"),
    "schedule, momentum": (
        dense,
        lambda: optimizers.SGD(halving(), momentum=0.9),
        "float32",
    ),
    "BatchNorm, SGD": (normalised, lambda: optimizers.SGD(0.1), "float32"),
    "BatchNorm, Adam": (normalised, lambda: optimizers.Adam(1e-3), "float32"),
    "convolution, BatchNorm, momentum": (
        convolutional,
        lambda: optimizers.SGD(0.05, momentum=0.9),
        "float32",
    ),
    "mixed_bfloat16, Adam": (dense, lambda: optimizers.Adam(1e-3), "mixed_bfloat16"),
    "mixed_float16, Adam": (dense, lambda: optimizers.Adam(1e-3), "mixed_float16"),
}


def build(case: str, jit: bool | str) -> keras.Model:
    body, optimizer, policy = CASES[case]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential([keras.Input((8, 8, 1)), *body()])
    keras.config.set_dtype_policy("float32")
    model = kl.mask_model(model)
    kl.prune(model, 0.8)
    model.compile(
        optimizer(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit,
    )
    return model


def trained(
    engine: str, case: str, steps: int, ulps: int = 0, jit: bool | str = "auto"
) -> dict[str, np.ndarray]:
    model, digits = build(case, jit), kl.data.load("digits")
    data = Data(digits.train, digits.validation, digits.test, batch_size=32)
    state = {
        name: np.where(array != 0, np.nextafter(array, np.float32(9)), array)
        if ulps and array.dtype == "float32"
        else array
        for name, array in get_state(model).items()
    }
    ticket = Ticket(kl.get_masks(model), state, 0, steps)
    made = make(engine, model, data, steps, eval_freq=steps)
    return dict(made.train(ticket, seed=0).final)


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference of any weight."""
    return max(
        float(np.abs(one[n].astype("float64") - other[n]).max())
        for n in one
        if "float" in str(one[n].dtype)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    rows, backend = [], keras.backend.backend()
    for case in options.cases:
        fit = trained("fit", case, options.steps)
        fused = trained("fused", case, options.steps)
        near = trained("fit", case, options.steps, ulps=1)
        by_xla = ""
        if "mixed" in case and backend == "tensorflow":
            compiled = trained("fit", case, options.steps, jit=True)
            plain = trained("fit", case, options.steps, jit=False)
            by_xla = f"{apart(plain, compiled):.0e} ({apart(fused, compiled):.0e})"
        differences = (f"{apart(fit, other):.0e}" for other in (fused, near))
        rows.append([case, *differences, by_xla])
        print(*rows[-1], sep=": ", flush=True)
    print(f"Largest difference of a weight after {options.steps} steps on {backend}")
    print(
        text_table(rows, ["training", "fit and fused", "one ulp at the start", "XLA"])
    )


if __name__ == "__main__":
    main()
