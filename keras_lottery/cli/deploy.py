"""`keras-lottery deploy`, which writes the best file of a run for a target."""

import argparse
import sys
from pathlib import Path

from keras_lottery.cli.parsing import (
    Parser,
    add_seconds,
    add_threads,
    add_verbose,
    directory,
    not_negative,
    word,
)
from keras_lottery.engines.objective import named
from keras_lottery.search import Run
from keras_lottery.ship.deploy import deploy
from keras_lottery.ship.deploy.candidates import WAYS
from keras_lottery.startup import no_run

HELP = "export a run's best tickets in every suitable format, and keep the best file"


def add_options(parser: Parser) -> None:
    """Adds the options of the command, and sets the function that it runs."""
    parser.set_defaults(function=_deploy)
    add = parser.add_argument
    add(
        "run",
        type=_run,
        metavar="RUN",
        help="the directory of a run, as left by `find`",
    )
    add(
        "--target",
        required=True,
        choices=[*WAYS],
        help="where the file is to run: mobile gets a .tflite file, server a "
        "SavedModel, microcontroller a dense .tflite file, onnx an .onnx file, and "
        "openvino a directory for OpenVINO",
    )
    add(
        "--prefer",
        default="latency",
        choices=("latency", "size", "download"),
        help="what to minimise: latency, size on disk, or download, the size after "
        "gzip (default: %(default)s)",
    )
    add(
        "--margin",
        type=not_negative,
        help="how much worse than the best file the chosen one may be on the "
        "validation data: in percentage points for an accuracy (default: 0.5), else in "
        "the metric's unit (default: 1 %% of the dense network's value)",
    )
    add(
        "--objective",
        type=word,
        metavar="NAME",
        help="compare files by another of the model's metrics, such as val_auc "
        "(default: the search's objective)",
    )
    add(
        "--data",
        help="data to compare the files on: digits, a TFDS name, or an .npz file of "
        "any arrays (default: the data of the run)",
    )
    add(
        "--saved-models",
        type=directory,
        default=Path("saved_models"),
        metavar="DIR",
        help="the file goes to a folder of the run's name in here (default: "
        "%(default)s)",
    )
    add_threads(parser)
    add_seconds(parser, 0.5)
    add_verbose(parser)


def _run(text: str) -> Path:
    path = Path(text)
    if path.is_file():
        raise argparse.ArgumentTypeError(no_run(path))
    return path


def _deploy(options: argparse.Namespace) -> None:
    def say(line: str) -> None:
        if options.verbose:
            print(line, file=sys.stderr)

    margin, objective = options.margin, options.objective
    if margin is not None:
        shown = named(objective) if objective else Run.load(options.run).objective
        margin /= shown.scale
    result = deploy(
        options.run,
        options.target,
        options.data,
        prefer=options.prefer,
        margin=margin,
        objective=objective,
        directory=options.saved_models,
        threads=options.threads,
        seconds=options.seconds,
        say=say,
    )
    print(result)
