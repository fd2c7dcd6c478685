"""`keras-lottery benchmark`, which measures files side by side."""

import argparse
import warnings
from pathlib import Path

import keras

from keras_lottery.cli.parsing import (
    Parser,
    add_seconds,
    add_threads,
    at_least,
    file,
    keras_file,
    word,
)
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.files import write_json
from keras_lottery.ship.deploy import plot_files
from keras_lottery.ship.deploy.files import check_files, measured, quality_by
from keras_lottery.ship.deploy.load import load
from keras_lottery.ship.deploy.show import as_records, as_text
from keras_lottery.study import plots

HELP = "measure exported files: size, latency, memory, accuracy"


def add_options(parser: Parser) -> None:
    """Adds the options of the command, and sets the function that it runs."""
    parser.set_defaults(function=_benchmark)
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        metavar="FILE",
        help="a .tflite or .onnx file, or the directory of a SavedModel or for "
        "OpenVINO",
    )
    add(
        "--data",
        help="measure the accuracy, or --objective, on the test part of these data: "
        "digits, a TFDS name, or an .npz file (default: no accuracy)",
    )
    add(
        "--model",
        type=keras_file,
        metavar="FILE.keras",
        help="the compiled model from which the files were made, whose metrics are "
        "measured",
    )
    add(
        "--objective",
        type=word,
        metavar="NAME",
        help="what to measure on the data: one of --model's metrics, such as "
        "val_age_mae, or without a model one of Keras's, such as val_mae or val_auc "
        "(default: the accuracy, else the model's only metric)",
    )
    add_threads(parser)
    add(
        "--no-xnnpack",
        action="store_true",
        help="run .tflite files without XNNPACK, LiteRT's fast kernels",
    )
    add(
        "--rounds",
        type=at_least(1),
        default=10,
        help="how often to go through all files, in turn (default: %(default)s)",
    )
    add_seconds(parser, 1.0)
    add(
        "--threshold",
        type=float,
        help="the output from which a file with a single output means the second class "
        "(default: 0.5, for probabilities; use 0 for logits)",
    )
    add(
        "--plot",
        type=file(*plots.KINDS),
        metavar="FILE.png",
        help="draw size, latency and accuracy of the files to this image",
    )
    add(
        "--json",
        type=file(".json"),
        metavar="FILE.json",
        help="write the table to this file as well",
    )


def _load(path: Path) -> keras.Model:
    with warnings.catch_warnings():
        # Keras warns of an optimizer that was saved before it trained.
        warnings.filterwarnings("ignore", "Skipping variable loading")
        return keras.saving.load_model(path)


def _benchmark(options: argparse.Namespace) -> None:
    check_files(options.files)  # This comes before data are loaded.
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
