"""The time of a whole search by each engine, of resuming it, and of the import.

    python benchmarks/search.py [--parts search resume import] [--pairs 3]
                                [--steps 1000] [--data mnist] [--only fit fused]
                                [--imports 15] [--json search.json]

search: LeNet-300-100 with batches of 60 and Adam; a few levels, one reinit control, two
replicates; on random data of MNIST's shape, or a data set. Every search runs in a
process of its own, and is timed from its call to its table: compiling and the start of
workers count, imports do not.
resume: the same search (`--resumed`) run again after it has finished, and one that is
killed as soon as half of its trainings are stored and then run again. Both parts of the
latter count; the kill loses the training in progress and the compiled programs.
import: processes that import only Keras or this library.

The runs take turns; ratios are to the first row, with the minimum and maximum of all
pairs. Figures worth quoting need two processors that do nothing else.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
# name: (engine, workers, backend of Keras)
CONTENDERS = {
    "fit": ("fit", 0, "tensorflow"),
    "fused": ("fused", 0, "tensorflow"),
    "fused, 2 workers": ("fused", 2, "tensorflow"),
    "auto": ("auto", "auto", "tensorflow"),
    "fit on jax": ("fit", 0, "jax"),
    "fused on jax": ("fused", 0, "jax"),
    "fused on jax, 2 workers": ("fused", 2, "jax"),
    "vectorized on jax": ("vectorized", 0, "jax"),
}
REPLICATES = 2
# Whatever Keras itself imports of these is not counted.
HEAVY = {
    *("tensorflow", "jax", "torch", "tensorflow_datasets", "pandas", "matplotlib"),
    *("sklearn", "scipy", "ray", "ai_edge_litert", "tensorflow_model_optimization"),
}
Runs = dict[str, Callable[[], float]]


def child(name: str, directory: str, levels: int, steps: int, data: str) -> None:
    """Runs one search; prints a line when it begins and when it has ended."""
    import keras

    import keras_lottery as kl

    if data == "random":
        rng = np.random.default_rng(0)
        train, validation, test = (
            (rng.random((n, 28, 28, 1), np.float32), rng.integers(0, 10, n))
            for n in (20_000, 5_000, 5_000)
        )
    else:
        splits = kl.data.load(data)
        train, validation, test = splits.train, splits.validation, splits.test

    def build() -> keras.Model:
        model = kl.models.lenet_300_100(train[0].shape[1:])
        model.compile(
            keras.optimizers.Adam(1.2e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    engine, workers, _ = CONTENDERS[name]
    search = kl.LotteryTicketSearch(
        build,
        kl.schedules.geometric(0.2, levels),
        controls={"reinit": 1},
        replicates=REPLICATES,
        directory=directory,
        engine=engine,
        workers=workers,
    )
    print("begins", flush=True)
    search.search(
        *train,
        validation_data=validation,
        test_data=test,
        batch_size=60,
        steps=steps,
        eval_freq=min(500, steps),
        verbose=0,
    )
    print("ended", flush=True)


def environment(backend: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    return os.environ | quiet | {"KERAS_BACKEND": backend}


def seconds(name: str, directory: Path, options, until: int | None = None) -> float:
    """The seconds of a search, or until a number of its trainings were stored."""
    sizes = map(str, (options.levels, options.steps, options.data))
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, __file__, "--child", name, str(directory), *sizes],
            env=environment(CONTENDERS[name][2]),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout
        lines = iter(process.stdout)
        # Keras may print lines of its own.
        is_done = "begins\n" in lines
        began = time.perf_counter()
        if until is None:
            is_done = is_done and "ended\n" in lines
        else:
            while (is_done := process.poll() is None) and _stored(directory) < until:
                time.sleep(0.01)
            process.kill()
        took = time.perf_counter() - began
        if not is_done:
            errors.seek(0)
            raise RuntimeError(
                f"the search by {name} failed, or ended too early:\n{errors.read()}"
            )
        return took


def _stored(directory: Path) -> int:
    return len(list(directory.glob("replicate_*/level_*/[!.]*.safetensors")))


def searches(options) -> Runs:
    def run(name: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return seconds(name, Path(folder), options)

    return {name: partial(run, name) for name in options.only}


def resumed(options) -> Runs:
    name = options.resumed
    trainings = REPLICATES * (1 + 2 * options.levels)
    folder = tempfile.TemporaryDirectory()
    finished, broken = (Path(folder.name, each) for each in ("finished", "broken"))

    def whole() -> float:
        for directory in (finished, broken):
            shutil.rmtree(directory, ignore_errors=True)
        return seconds(name, finished, options)

    def killed() -> float:
        before = seconds(name, broken, options, until=trainings // 2)
        return before + seconds(name, broken, options)

    def again() -> float:
        assert folder  # it is removed with the last of these functions
        return seconds(name, finished, options)

    return {name: whole, "run again": again, "killed half-way": killed}


def imports(options) -> Runs:
    def run(package: str) -> float:
        began = time.perf_counter()
        python(f"import {package}")
        return time.perf_counter() - began

    packages = ("keras", "keras_lottery")
    return {f"import {package}": partial(run, package) for package in packages}


def python(code: str) -> str:
    """The output of a Python process."""
    env = environment(os.environ.get("KERAS_BACKEND", "tensorflow"))
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=env, check=True, capture_output=True, text=True
    ).stdout


def added() -> set[str]:
    """The packages that this library imports in addition to those of Keras."""
    code = "import {0}, sys; print(*(name.partition('.')[0] for name in sys.modules))"
    ours, theirs = (
        set(python(code.format(package)).split())
        for package in ("keras_lottery", "keras")
    )
    return ours - theirs - sys.stdlib_module_names


def measure(part: str, runs: Runs, pairs: int) -> list[dict]:
    """Times interleaved runs; prints and returns the ratios to the first of them."""
    from keras_lottery.tables import text_table

    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(pairs):
        for name, run in runs.items():
            times[name].append(run())
    first = next(iter(times.values()))
    rows, lines = [], []
    for name, values in times.items():
        ratios = sorted(a / b for a, b in zip(values, first, strict=True))
        row = {"part": part, "name": name, "ratio": statistics.median(ratios)}
        row |= {"least_ratio": ratios[0], "greatest_ratio": ratios[-1]}
        rows.append(row | {"seconds": values})
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        seconds = f"{statistics.median(values):.2f}", f"{min(values):.2f}"
        lines.append([name, f"{row['ratio']:.2f}", spread, *seconds])
    header = [part, "ratio", "spread", "seconds", "least"]
    print(f"\n{text_table(lines, header)}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"search": searches, "resume": resumed, "import": imports}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--imports", type=int, default=15, help="pairs of imports")
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--data", default="random")
    parser.add_argument(
        "--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS)
    )
    parser.add_argument("--resumed", choices=CONTENDERS, default="fused")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, directory, levels, steps, data = options.child
        child(name, directory, int(levels), int(steps), data)
        return 0
    rows = []
    for part in options.parts:
        pairs = options.imports if part == "import" else options.pairs
        rows += measure(part, parts[part](options), pairs)
    heavy: set[str] = set()
    if "import" in options.parts:
        packages = added()
        heavy = packages & HEAVY
        print(f"imported beside Keras's own: {', '.join(sorted(packages))}")
        print(f"heavy among them: {', '.join(sorted(heavy)) or 'none'}")
    if options.json:
        machine = {"processors": os.cpu_count(), "python": platform.python_version()}
        settings = {k: getattr(options, k) for k in ("data", "levels", "steps")}
        report = {"machine": machine, **settings, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2))
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
