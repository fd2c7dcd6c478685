"""Are damaged files refused by name, read with the right content, or worse?

    python benchmarks/damaged_files.py [--damages 60] [--seed 0]

Files of every kind that the library writes, those of Keras and LiteRT with and without
the report that `keras-lottery find` writes beside them, are damaged at random: one bit
is flipped (two of three times), the end is cut off, or up to 64 bytes are set to zero.
Each is read in a process of its own, whose crash is counted, and the result is compared
with that of the intact file. Once, the file is replaced by another intact one of the
same kind.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import hashlib
import io
import multiprocessing
import os
import pickle
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np

import keras_lottery as kl
from keras_lottery.files import write_sealed
from keras_lottery.ship.deploy import measure
from keras_lottery.ship.deploy.files import check_files
from keras_lottery.tables import text_table

SECONDS = 60
REQUEST = {"threads": 1, "xnnpack": True, "shape": None}
X = np.random.default_rng(0).random((48, 8), np.float32)
Y = np.arange(48) % 3


def build(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dense(3, name="output"),
        ],
        name="net",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


def write_all(folder: Path, seed: int) -> None:
    """One file of each kind."""
    run = kl.LotteryTicketSearch(
        functools.partial(build, seed),
        [0.5],
        controls=None,
        engine="fit",
        workers=0,
        seed=seed,
        directory=folder / "run",
    )
    run.search(X, Y, validation_data=(X, Y), batch_size=8, epochs=1, verbose=0)
    ticket = run.ticket(1)
    model = ticket.trained_model()
    ticket.save(folder / "net.ticket")
    kl.save_compressed(model, folder / "net.klc")
    model.save_weights(folder / "net.weights.h5")
    exported = folder / "exported"
    exports = [
        kl.export.to_keras(ticket, exported / "net.keras"),
        kl.export.to_litert(ticket, exported / "net.tflite"),
        kl.export.to_saved_model(ticket, exported / "saved_model"),
    ]
    shutil.copytree(exported, folder / "alone")
    card = {"level": 1, "density": 0.5, "exports": [e.to_dict() for e in exports]}
    write_sealed(exported / "reports.json", card)
    write_sealed(run.store.exports, card)


def of_model(model: keras.Model) -> Any:
    configs = [layer.get_config() for layer in model.layers]
    return configs, [np.asarray(weight) for weight in model.weights]


def of_ticket(path: Path) -> Any:
    ticket = kl.load_ticket(path)
    arrays = {n: np.asarray(mask) for n, mask in ticket.masks.items()}
    states = ticket.weights, ticket.trained
    return arrays, states, ticket.step, ticket.steps, ticket.architecture, ticket.card


def of_training(path: Path) -> Any:
    masks = kl.Run.load(path.parents[2]).masks(1, 0)
    trained = kl.Run.load(path.parents[2]).trained(1, 0)
    return {n: np.asarray(mask) for n, mask in masks.items()}, trained


def of_weights(path: Path) -> Any:
    model = kl.mask_model(build(0))
    model.load_weights(path)
    return of_model(model)


def of_keras(path: Path) -> Any:
    if path.parent.name == "exported":
        kl.export.check_file(path)
    return of_model(keras.saving.load_model(path))


def outputs(path: Path) -> Any:
    """Runs a file in the same way as `benchmark`, without timing it.

    The file runs in a process of its own there, too, and a crash names the file.
    """
    check_files(path)
    try:
        return measure.load(str(path), REQUEST).outputs()
    except Exception as error:
        raise ValueError(f"'{path}': {error}") from error


def of_saved_model(path: Path) -> Any:
    """The outputs of the model to which a file belongs."""
    folder = path.parent if path.suffix == ".pb" else path.parents[1]
    return outputs(folder)


def as_c(path: Path) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        kl.export.to_c_array(path, Path(folder, "net.c"))
        return Path(folder, "net.c").read_text(), Path(folder, "net.h").read_text()


GRAPH = "saved_model/saved_model.pb"
VARIABLES = "saved_model/variables/variables.data-00000-of-00001"
KINDS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "ticket": ("net.ticket", of_ticket),
    "compressed model": ("net.klc", lambda path: of_model(kl.load_compressed(path))),
    "stored training": (
        "run/replicate_0/level_01/ticket_0.safetensors",
        of_training,
    ),
    "`settings.json`": (
        "run/settings.json",
        lambda path: kl.Run.load(path.parent).settings,
    ),
    "`reports.json`": (
        "run/reports.json",
        lambda path: kl.Run.load(path.parent).exports,
    ),
    "`.keras`, with its report": ("exported/net.keras", of_keras),
    "`.keras` alone": ("alone/net.keras", of_keras),
    "`.weights.h5` of Keras": ("net.weights.h5", of_weights),
    "`.tflite`, with its report": ("exported/net.tflite", outputs),
    "`.tflite` alone": ("alone/net.tflite", outputs),
    "… to C, with its report": ("exported/net.tflite", as_c),
    "… to C, alone": ("alone/net.tflite", as_c),
    "SavedModel's variables, with its report": (
        f"exported/{VARIABLES}",
        of_saved_model,
    ),
    "SavedModel's graph, with its report": (f"exported/{GRAPH}", of_saved_model),
    "SavedModel's variables alone": (f"alone/{VARIABLES}", of_saved_model),
    "SavedModel's graph alone": (f"alone/{GRAPH}", of_saved_model),
}
OUTCOMES = ("refused by name", "read as it was", "changed", "other error", "crash")


def read(kind: str, folder: Path) -> tuple[str, str]:
    """The result of reading a file: a digest of its content, or an error."""
    name, reader = KINDS[kind]
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader(folder / name)
        return "read", hashlib.sha256(pickle.dumps(_plain(found))).hexdigest()
    except Exception as error:
        named = Path(name).parts[-1] in str(error) or "saved_model'" in str(error)
        text = f"{type(error).__name__}: {error}"
        return "refused by name" if named else "other error", text


def _plain(found: Any) -> Any:
    """Replaces arrays by bytes, so that equal values are pickled to equal bytes."""
    if isinstance(found, dict):
        return [(key, _plain(value)) for key, value in sorted(found.items())]
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    if isinstance(found, np.ndarray):
        return str(found.dtype), found.shape, found.tobytes()
    return str(found)


def damaged(data: bytes, number: int, rng: random.Random) -> bytes:
    """Damaged data that differ from the intact ones."""
    while True:
        new = bytearray(data)
        at = rng.randrange(len(data))
        if number % 6 == 4:
            del new[at:]
        elif number % 6 == 5:
            end = min(len(data), at + rng.randint(1, 64))
            new[at:end] = bytes(end - at)
        else:
            new[at] ^= 1 << rng.randrange(8)
        if new != data:
            return bytes(new)


class Reader:
    """Reads in another process, and starts a new one after a crash."""

    def __init__(self) -> None:
        self.pool: ProcessPoolExecutor | None = None

    def __call__(self, kind: str, folder: Path) -> tuple[str, str]:
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(1, context)
        try:
            return self.pool.submit(read, kind, folder).result(SECONDS)
        except (BrokenProcessPool, concurrent.futures.TimeoutError) as error:
            for process in list((self.pool._processes or {}).values()):
                process.kill()
            self.pool = None
            return "crash", type(error).__name__


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--damages", type=int, default=60, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    rng, reader, rows = random.Random(options.seed), Reader(), []
    with tempfile.TemporaryDirectory() as made:
        folder, others = Path(made, "one"), Path(made, "other")
        with contextlib.redirect_stdout(io.StringIO()):
            write_all(folder, 0)
            write_all(others, 1)
        for kind in options.kinds:
            path, other = folder / KINDS[kind][0], others / KINDS[kind][0]
            data = path.read_bytes()
            whole = reader(kind, folder)
            if whole[0] != "read":
                sys.exit(f"{kind}: the whole file is refused: {whole[1]}")

            def outcome(content: bytes) -> str:
                path.write_bytes(content)  # noqa: B023 - called in this round alone
                how, what = reader(kind, folder)  # noqa: B023
                if how not in ("read", "refused by name"):
                    print(f"{kind}: {how}: {what:.150}", file=sys.stderr)  # noqa: B023
                equal = "read as it was" if what == whole[1] else "changed"  # noqa: B023
                return equal if how == "read" else how

            counts = Counter(
                outcome(damaged(data, number, rng)) for number in range(options.damages)
            )
            swapped = outcome(other.read_bytes())
            path.write_bytes(data)
            swapped = "read" if swapped == "changed" else swapped
            rows.append([kind, *(str(counts[each]) for each in OUTCOMES), swapped])
            print(*rows[-1], sep=" | ", flush=True)
    print(text_table(rows, ["of", *OUTCOMES, "another whole file"]))


if __name__ == "__main__":
    main()
