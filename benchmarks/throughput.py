"""Steps per second of each engine, compared with Keras, TFMOT and PyTorch.

    python benchmarks/throughput.py [--models lenet conv_2 resnet] [--pairs 9]
                                    [--steps 300] [--only fit "fused masked"]
                                    [--json throughput.json]

Every contender trains in a process of its own, which stays alive; they take turns, and
ratios are to the first one. A row "x 2" is two processes with one thread each, side by
side, and counts the steps of both; "vectorized" trains 20 networks in one program, and
counts the steps of all. The data are random. Libraries that are not installed (TFMOT
with tf_keras, PyTorch, JAX) are left out, and a line says so.

Figures worth quoting need two processors that do nothing else.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

BATCH = 60
# The approximate speed of the networks relative to LeNet.
SHARE = {"lenet": 1.0, "conv_2": 1 / 30, "resnet": 1 / 30}
SHAPES = {"lenet": (28, 28, 1), "conv_2": (32, 32, 3), "resnet": (32, 32, 3)}
# name: (what trains, masked, backend of Keras, processes)
CONTENDERS = {
    "fit": ("fit", False, "tensorflow", 1),
    "fit masked": ("fit", True, "tensorflow", 1),
    "fit jit 100": ("fit_jit", False, "tensorflow", 1),
    "fit jit 100 masked": ("fit_jit", True, "tensorflow", 1),
    "fused": ("fused", False, "tensorflow", 1),
    "fused masked": ("fused", True, "tensorflow", 1),
    "fit on jax": ("fit", False, "jax", 1),
    "fit on jax masked": ("fit", True, "jax", 1),
    "fused on jax": ("fused", False, "jax", 1),
    "fused on jax masked": ("fused", True, "jax", 1),
    "vectorized on jax masked": ("vectorized", True, "jax", 1),
    "TFMOT masked": ("tfmot", True, "tensorflow", 1),
    "PyTorch": ("torch", False, "tensorflow", 1),
    "PyTorch masked": ("torch", True, "tensorflow", 1),
    "fused masked x 2": ("fused", True, "tensorflow", 2),
    "fused on jax masked x 2": ("fused", True, "jax", 2),
    "PyTorch masked x 2": ("torch", True, "tensorflow", 2),
}
# The number of networks that a contender trains in one program.
NETS = {"vectorized": 20}
NEEDS = {"tfmot": ("tensorflow_model_optimization", "tf_keras"), "torch": ("torch",)}
ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "NPROC",
    )
}

Run = Callable[[int], None]


def examples(model: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = BATCH * steps
    return rng.random((n, *SHAPES[model]), np.float32), rng.integers(0, 10, n)


def build(model: str, keras):
    """Builds the network with the given `keras` or `tf_keras`."""
    layers = keras.layers
    x = inputs = keras.Input(SHAPES[model])
    if model == "lenet":
        x = layers.Flatten()(x)
        for width in (300, 100):
            x = layers.Dense(width, "relu")(x)
    elif model == "conv_2":
        for _ in range(2):
            x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
        x = layers.Flatten()(layers.MaxPooling2D()(x))
        for _ in range(2):
            x = layers.Dense(256, "relu")(x)
    else:
        x = _convolved(layers, x, 16)
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            y = _convolved(layers, x, width, stride)
            y = _convolved(layers, y, width, activation=False)
            if stride > 1:
                x = layers.Conv2D(width, 1, stride, use_bias=False)(x)
            x = layers.ReLU()(layers.Add()([x, y]))
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def _convolved(layers, x, width, stride=1, activation=True):
    x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if activation else x


def compiled(model, keras, **settings):
    model.compile(
        optimizer=keras.optimizers.Adam(1.2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **settings,
    )
    return model


def keras_model(name: str, masked: bool, **settings):
    import keras

    import keras_lottery as kl

    model = build(name, keras)
    if masked:
        model = kl.mask_model(model)
        kl.prune(model, 0.8)
    return compiled(model, keras, **settings)


def fit(name: str, masked: bool, steps: int, **settings) -> Run:
    model, (x, y) = keras_model(name, masked, **settings), examples(name, steps)
    return lambda seed: model.fit(x, y, batch_size=BATCH, verbose=0)


def fit_jit(name: str, masked: bool, steps: int) -> Run:
    return fit(name, masked, steps, jit_compile=True, steps_per_execution=100)


def engine_of(kind: str, name: str, masked: bool, steps: int):
    from keras_lottery.engines import make
    from keras_lottery.engines.data import Data

    parts = examples(name, steps)
    few = tuple(part[:BATCH] for part in parts)
    data = Data(parts, few, batch_size=BATCH)
    return make(kind, keras_model(name, masked), data, steps)


def fused(name: str, masked: bool, steps: int) -> Run:
    engine = engine_of("fused", name, masked, steps)
    loop = engine._compiled()
    return lambda seed: loop.train(engine.data.order(seed, 0), 0, steps)


def vectorized(name: str, masked: bool, steps: int) -> Run:
    import keras_lottery as kl
    from keras_lottery.engines.record import TrainingRecord
    from keras_lottery.engines.vectorized import _Stack
    from keras_lottery.tickets import Ticket

    engine = engine_of("vectorized", name, masked, steps)
    engine._compiled()
    model, nets = engine.model, NETS["vectorized"]
    ticket = Ticket(kl.get_masks(model), kl.get_state(model), 0, steps)
    records = [
        TrainingRecord(engine, ticket, lambda reached: None) for _ in range(nets)
    ]
    stack = _Stack(engine, [ticket] * nets, range(nets), records)
    orders = stack._orders(0)

    def run(seed: int) -> None:
        stack._train(orders, 0, steps)
        # The call returns before its work is done.
        for array in stack.state[0]:
            array.block_until_ready()

    return run


def tfmot(name: str, masked: bool, steps: int) -> Run:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    x, y = examples(name, steps)
    sparsity = tfmot.sparsity.keras.ConstantSparsity(0.8, 0, frequency=100)
    model = tfmot.sparsity.keras.prune_low_magnitude(
        build(name, tf_keras), pruning_schedule=sparsity
    )
    compiled(model, tf_keras)
    update = tfmot.sparsity.keras.UpdatePruningStep()
    return lambda seed: model.fit(x, y, BATCH, verbose=0, callbacks=[update])


def torch(name: str, masked: bool, steps: int) -> Run:
    """A loop that multiplies the weights by their masks before each step."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *convolved(before, width, stride),
                nn.ReLU(),
                *convolved(width, width, 1),
            )
            self.short = (
                nn.Conv2d(before, width, 1, stride, bias=False)
                if stride > 1
                else nn.Identity()
            )

        def forward(self, x):
            return torch.relu(self.body(x) + self.short(x))

    def convolved(before: int, width: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        return [convolution, nn.BatchNorm2d(width)]

    def dense(*widths: int) -> list[nn.Module]:
        stack: list[nn.Module] = []
        for before, width in itertools.pairwise(widths):
            stack += [nn.Linear(before, width), nn.ReLU()]
        return stack[:-1]

    networks = {
        "lenet": lambda: [nn.Flatten(), *dense(784, 300, 100, 10)],
        "conv_2": lambda: [
            nn.Conv2d(3, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            *dense(16 * 16 * 64, 256, 256, 10),
        ],
        "resnet": lambda: [
            *convolved(3, 16, 1),
            nn.ReLU(),
            Residual(16, 16, 1),
            Residual(16, 32, 2),
            Residual(32, 64, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        ],
    }
    model = nn.Sequential(*networks[name]())
    x, y = examples(name, steps)
    images, labels = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y)
    optimizer = torch.optim.Adam(model.parameters(), 1.2e-3)
    lost = nn.CrossEntropyLoss()
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    masks = [(torch.rand(weight.shape) < 0.2).float() for weight in weights]

    def run(seed: int) -> None:
        order = torch.randperm(len(images))
        for step in range(steps):
            if masked:
                with torch.no_grad():
                    for weight, mask in zip(weights, masks, strict=True):
                        weight.mul_(mask)
            chosen = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad()
            lost(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()

    return run


def serve(kind: str, model: str, masked: bool, steps: int) -> None:
    """Trains `steps` steps for each line that is read, and writes the seconds."""
    run = globals()[kind](model, masked, steps)
    run(0)
    answers = os.fdopen(int(os.environ["ANSWERS"]), "w")
    for seed, _ in enumerate(sys.stdin):
        print("ready" if not seed else _timed(run, seed), file=answers, flush=True)


def _timed(run: Run, seed: int) -> float:
    began = time.perf_counter()
    run(seed)
    return time.perf_counter() - began


class Contender:
    """Processes that train when they are told to."""

    def __init__(self, name: str, model: str, steps: int) -> None:
        kind, masked, backend, self.processes = CONTENDERS[name]
        self.steps = steps * NETS.get(kind, 1)
        env = os.environ | {
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            ),
        }
        if self.processes > 1:
            env |= ONE_THREAD
        self.children = []
        for _ in range(self.processes):
            reading, writing = os.pipe()
            child = subprocess.Popen(
                [sys.executable, __file__, "--serve", kind, model, str(steps)]
                + ["--masked"] * masked,
                env=env | {"ANSWERS": str(writing)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[writing],
                text=True,
            )
            os.close(writing)
            self.children.append((child, os.fdopen(reading)))
        self._ask()

    def rate(self) -> float:
        """Steps per second of all processes together."""
        return self.processes * self.steps / max(map(float, self._ask()))

    def close(self) -> None:
        for child, _ in self.children:
            child.kill()
            child.wait()

    def _ask(self) -> list[str]:
        for child, _ in self.children:
            with contextlib.suppress(BrokenPipeError):
                print(file=child.stdin, flush=True)
        answers = [answer.readline().strip() for _, answer in self.children]
        if not all(answers):
            raise RuntimeError("a process ended")
        return answers


@contextlib.contextmanager
def contenders(names: list[str], model: str, steps: int) -> Iterator[dict]:
    """The contenders that are installed; prints the names of the others."""
    ready: dict[str, Contender] = {}
    try:
        for name in names:
            kind, _, backend, _ = CONTENDERS[name]
            needs = [*NEEDS.get(kind, ()), backend]
            missing = [each for each in needs if not importlib.util.find_spec(each)]
            if missing:
                print(f"left out: {name} ({', '.join(missing)} not installed)")
                continue
            try:
                ready[name] = Contender(name, model, steps)
            except RuntimeError as error:
                print(f"left out: {name} ({error}; run it with --serve to see why)")
        yield ready
    finally:
        for contender in ready.values():
            contender.close()


def measure(names: list[str], model: str, steps: int, pairs: int) -> dict:
    """Rates of interleaved runs, by contender."""
    with contenders(names, model, steps) as ready:
        rates: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(pairs):
            for name, contender in ready.items():
                rates[name].append(contender.rate())
    return rates


def table(model: str, rates: dict[str, list[float]]) -> list[dict]:
    """Prints and returns the ratios to the first contender."""
    from keras_lottery.tables import text_table

    first = next(iter(rates))
    rows, lines = [], []
    for name, values in rates.items():
        ratios = sorted(a / b for a, b in zip(values, rates[first], strict=True))
        rows.append(
            {
                "model": model,
                "contender": name,
                "ratio": statistics.median(ratios),
                "least_ratio": ratios[0],
                "greatest_ratio": ratios[-1],
                "steps_per_second": values,
            }
        )
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        median, best = statistics.median(values), max(values)
        ratio = rows[-1]["ratio"]
        lines.append([name, f"{ratio:.2f}", spread, f"{median:.0f}", f"{best:.0f}"])
    header = [model, "ratio", "spread", "steps/s", "best"]
    print(f"\n{text_table(lines, header)}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS)
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--masked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, model, steps = options.serve
        serve(kind, model, options.masked, int(steps))
        return
    rows = []
    for model in options.models:
        steps = max(3, round(options.steps * SHARE[model]))
        rows += table(model, measure(options.only, model, steps, options.pairs))
    if options.json:
        machine = {"processors": os.cpu_count(), "python": platform.python_version()}
        report = {"machine": machine, "batch": BATCH, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
