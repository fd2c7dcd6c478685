"""`keras-lottery benchmark`: measures files one beside the other."""

import argparse
import warnings
from pathlib import Path

import keras

from keras_lottery.cli.parsing import Parser, at_least, file, positive, word
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.files import write_json
from keras_lottery.ship.deploy import plot_files
from keras_lottery.ship.deploy.files import check_files, measured, quality_by
from keras_lottery.ship.deploy.load import load
from keras_lottery.ship.deploy.show import as_records, as_text
from keras_lottery.study import plots

HELP = "measure .tflite files and SavedModels: bytes, latency, memory, accuracy"


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_benchmark)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=".tflite, or a SavedModel's directory")
    add("--data", help="measure the accuracy, or the objective, on the test part of: "
        "digits, a TFDS name, or an .npz file")  # fmt: skip
    add(
        "--model",
        type=_model,
        metavar="FILE.keras",
        help="the compiled model that the files were made of: its metrics measure them",
    )
    add(
        "--objective",
        type=word,
        metavar="NAME",
        help="what to measure on the data: one of the model's metrics, such as "
        "val_age_mae, or without a model one of Keras's, such as val_mae or val_auc "
        "(an accuracy; else the model's only metric)",
    )
    add("--threads", type=at_least(1), default=1, help="of a file (%(default)s)")
    add("--no-xnnpack", action="store_true", help="without LiteRT's fast kernels")
    add("--rounds", type=at_least(1), default=10, help="over all files (%(default)s)")
    add("--seconds", type=positive, default=1.0, help="of timing a file (%(default)s)")
    add("--threshold", type=float, help="where a file with one output decides between "
        "two classes (0.5, of probabilities; 0 for logits)")  # fmt: skip
    add(
        "--plot",
        type=file(*plots.KINDS),
        metavar="FILE.png",
        help="size, latency, accuracy",
    )
    add(
        "--json",
        type=file(".json"),
        metavar="FILE.json",
        help="write the table there too",
    )


def _model(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".keras" or not path.is_file():
        raise argparse.ArgumentTypeError(
            f"expected a .keras file of a compiled model. Received: {text!r}"
        )
    return path


def _load(path: Path) -> keras.Model:
    with warnings.catch_warnings():
        # That of an optimizer which was saved before it trained.
        warnings.filterwarnings("ignore", "Skipping variable loading")
        return keras.saving.load_model(path)


def _benchmark(options: argparse.Namespace) -> None:
    check_files(options.files)  # Before data are loaded.
    quality = quality_by(
        load(options.data).test if options.data else None,
        options.threshold,
        _load(options.model) if options.model else None,
        options.objective,
    )
    table = measured(
        options.files,
        quality,
        threads=options.threads,
        xnnpack=not options.no_xnnpack,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    objective = quality.objective if quality else ACCURACY
    print(as_text(table, objective))
    if options.plot:
        plot_files(table, options.plot, objective)
    if options.json:
        write_json(options.json, as_records(table))
