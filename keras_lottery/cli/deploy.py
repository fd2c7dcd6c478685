"""`keras-lottery deploy`: the best file of a run, for a phone or a server."""

import argparse
import sys
from pathlib import Path

from keras_lottery.cli.parsing import (
    Parser,
    at_least,
    directory,
    not_negative,
    positive,
    word,
)
from keras_lottery.engines.objective import named
from keras_lottery.search import Run
from keras_lottery.ship.deploy import deploy
from keras_lottery.ship.deploy.candidates import WAYS
from keras_lottery.startup import no_run

HELP = "try the files that a run's tickets can become, and write the best"


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_deploy)
    add = parser.add_argument
    add("run", type=_run, metavar="RUN", help="the directory of a search")
    add("--target", required=True, choices=[*WAYS], help=".tflite, SavedModel, "
        "or dense .tflite")  # fmt: skip
    add(
        "--prefer",
        default="latency",
        choices=("latency", "size", "download"),
        help="what the chosen file is best in; download is bytes after gzip "
        "(%(default)s)",
    )
    add(
        "--margin",
        type=not_negative,
        help="how much worse than the best file it may be on the validation data: "
        "percentage points of an accuracy (0.5), else in the metric's unit (1 %% of "
        "the dense network's)",
    )
    add(
        "--objective",
        type=word,
        metavar="NAME",
        help="what files are compared by: one of the model's metrics, such as val_auc "
        "(what the search compared by)",
    )
    add("--data", help="digits, a TFDS name, or an .npz file of any arrays (what the "
        "run notes)")  # fmt: skip
    add(
        "--saved-models",
        type=directory,
        default=Path("saved_models"),
        help="(%(default)s)",
    )
    add("--threads", type=at_least(1), default=1, help="of a file (%(default)s)")
    add("--seconds", type=positive, default=0.5, help="of timing a file (%(default)s)")
    add("--verbose", type=int, choices=(0, 1), default=1, help="(%(default)s)")


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
