"""`keras-lottery prune`: any `.keras` file, pruned and as the best file of a target."""

import argparse
import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import keras

from keras_lottery.cli.parsing import (
    Parser,
    at_least,
    directory,
    granularity,
    not_negative,
    positive,
    share,
    word,
)
from keras_lottery.engines.objective import named
from keras_lottery.ship.deploy import shrink
from keras_lottery.ship.deploy.candidates import WAYS
from keras_lottery.ship.deploy.choose import PREFER
from keras_lottery.ship.export.errors import in_short
from keras_lottery.structured import filter_criteria
from keras_lottery.tickets.criteria import CRITERIA
from keras_lottery.tickets.repair import REPAIRS

HELP = "prune a .keras file, and write the best file for a phone, server or chip"
MOST = 300


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_prune)
    add = parser.add_argument
    add("model", type=_keras_file, metavar="MODEL.keras", help="a model of Keras 3")
    add(
        "--sparsity",
        type=share,
        default=0.8,
        help="the share of zeros; of filters, of the filters (%(default)s)",
    )
    add(
        "--data",
        help="what to fine-tune on: digits, a TFDS name, or an .npz file with x_train "
        "and y_train, under y_train/NAME for several outputs; x_train alone only "
        "calibrates; without any, the model is pruned at once",
    )
    add(
        "--target",
        default="mobile",
        choices=[*WAYS],
        help=".tflite, SavedModel, or .tflite and C (%(default)s)",
    )
    add(
        "--granularity",
        type=granularity,
        metavar="NAME",
        help="what is pruned together: weight, block_1x4 or of other sizes, 2:4 or "
        "other N:M, column, filter, channel, head (what makes the target's files fast)",
    )
    criteria = [*CRITERIA.names(), *filter_criteria.CRITERIA.names()]
    add(
        "--criterion",
        default="magnitude",
        choices=sorted(set(criteria)),
        metavar="NAME",
        help="what a weight is worth: magnitude, wanda, snip, ... (%(default)s)",
    )
    add("--repair", choices=REPAIRS.names(), help="change the weights that are left, "
        "by the inputs of layers")  # fmt: skip
    add(
        "--epochs",
        type=at_least(0),
        default=5,
        help="of fine-tuning; 0 prunes at once (%(default)s)",
    )
    add("--batch-size", type=at_least(1), default=32, help="(%(default)s)")
    add(
        "--loss",
        type=word,
        help="what a model that is not compiled is trained by, a name of Keras's; of "
        "several outputs, age=mse,sex=binary_crossentropy",
    )
    add(
        "--tolerance",
        type=not_negative,
        help="how much worse than the best file the chosen one may be on the "
        "validation data: percentage points of an accuracy (0.5), else in the metric's "
        "unit (1 %% of what the model has)",
    )
    add(
        "--objective",
        type=word,
        metavar="NAME",
        help="what files are compared by: one of the model's metrics, such as val_auc",
    )
    add("--prefer", choices=[*PREFER], help="what the chosen file is best in (latency; "
        "size for microcontrollers)")  # fmt: skip
    add("--out", type=directory, default=Path("shrunk"), help="(%(default)s)")
    add(
        "--import",
        dest="modules",
        action="append",
        default=[],
        type=word,
        metavar="MODULE",
        help="a module that registers the model's own layers and functions",
    )
    add("--threads", type=at_least(1), default=1, help="of a file (%(default)s)")
    add("--seconds", type=positive, default=0.5, help="of timing a file (%(default)s)")
    add("--verbose", type=int, choices=(0, 1), default=1, help="(%(default)s)")


def _keras_file(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".keras" or not path.is_file():
        raise argparse.ArgumentTypeError(
            f"expected a .keras file that is there. Received: {text!r}"
        )
    return path


def _prune(options: argparse.Namespace) -> None:
    def say(line: str) -> None:
        if options.verbose:
            print(line, file=sys.stderr, flush=True)

    model = _loaded(options.model, options.modules)
    tolerance = options.tolerance
    if tolerance is not None and _is_percent(model, options.objective):
        tolerance /= 100
    result = shrink(
        model,
        options.sparsity,
        options.data,
        options.target,
        granularity=options.granularity,
        criterion=options.criterion,
        repair=options.repair,
        epochs=options.epochs,
        batch_size=options.batch_size,
        loss=_losses(options.loss),
        tolerance=tolerance,
        objective=options.objective,
        prefer=options.prefer,
        directory=options.out,
        threads=options.threads,
        seconds=options.seconds,
        say=say,
    )
    print(result)


def _loaded(path: Path, modules: list[str]) -> keras.Model:
    sys.path.insert(0, os.getcwd())
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        sys.path.remove(os.getcwd())
    try:
        with warnings.catch_warnings():
            # That of an optimizer which was saved before it trained.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            return keras.saving.load_model(path)
    except Exception as error:
        said = in_short(error)
        said = said if len(said) <= MOST else f"{said[:MOST]} ..."
        raise ValueError(
            "Expected a .keras file that Keras can load; --import names the module of "
            f"its own layers and functions. Received: {path}. Keras says: {said}"
        ) from error


def _losses(text: str | None) -> Any:
    if text is None or "=" not in text:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    return {output: loss for output, _, loss in pairs}


def _is_percent(model: keras.Model, objective: str | None) -> bool:
    """Whether files are compared by an accuracy, whose tolerance is in percent."""
    if objective is not None:
        return named(objective).is_share
    if not model.compiled:
        return True
    config = model.get_compile_config() or {}
    return "acc" in str(config.get("metrics")).lower()
