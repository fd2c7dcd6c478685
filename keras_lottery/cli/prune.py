"""`keras-lottery prune`, which prunes any `.keras` file and writes the best file."""

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
    add_seconds,
    add_threads,
    add_verbose,
    at_least,
    directory,
    granularity,
    keras_file,
    not_negative,
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
    """Adds the options of the command, and sets the function that it runs."""
    parser.set_defaults(function=_prune)
    add = parser.add_argument
    add("model", type=keras_file, metavar="MODEL.keras", help="the Keras 3 model")
    add(
        "--sparsity",
        type=share,
        default=0.8,
        help="share of weights to prune, or of filters where whole filters are pruned "
        "(default: %(default)s)",
    )
    add(
        "--data",
        help="data to fine-tune on: digits, a TFDS name, or an .npz file with x_train "
        "and y_train (y_train/NAME for each of several outputs). With x_train alone, "
        "or without data, the model is pruned at once and not trained",
    )
    add(
        "--target",
        default="mobile",
        choices=[*WAYS],
        help="where the file is to run: mobile gets a .tflite file, server a "
        "SavedModel, microcontroller a .tflite file and C, onnx an .onnx file, and "
        "openvino a directory for OpenVINO (default: %(default)s)",
    )
    add(
        "--granularity",
        type=granularity,
        metavar="NAME",
        help="what is pruned together: weight, block_1x4 or another size, 2:4 or "
        "another N:M, column, filter, channel, head (default: what makes the target's "
        "files fast)",
    )
    criteria = [*CRITERIA.names(), *filter_criteria.CRITERIA.names()]
    add(
        "--criterion",
        default="magnitude",
        choices=sorted(set(criteria)),
        metavar="NAME",
        help="how weights are scored: magnitude, wanda, snip, ... (default: "
        "%(default)s)",
    )
    add(
        "--repair",
        choices=REPAIRS.names(),
        metavar="NAME",
        help="adjust the remaining weights to the layers' inputs: "
        f"{', '.join(REPAIRS.names())} (default: none)",
    )
    add(
        "--epochs",
        type=at_least(0),
        default=5,
        help="epochs of fine-tuning; 0 prunes at once (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=at_least(1),
        default=32,
        help="examples per step of fine-tuning (default: %(default)s)",
    )
    add(
        "--loss",
        type=word,
        help="the loss of a model that is not compiled: a name of Keras's, or for "
        "several outputs age=mse,sex=binary_crossentropy (default: the model's own)",
    )
    add(
        "--tolerance",
        type=not_negative,
        help="how much worse than the best file the chosen one may be on the "
        "validation data: in percentage points for an accuracy (default: 0.5), else in "
        "the metric's unit (default: 1 %% of the model's value)",
    )
    add(
        "--objective",
        type=word,
        metavar="NAME",
        help="compare files by one of the model's metrics, such as val_auc (default: "
        "the accuracy, else the model's only metric)",
    )
    add(
        "--prefer",
        choices=[*PREFER],
        help="what to minimise: latency, size on disk, or download, the size after "
        "gzip (default: latency; size for microcontrollers)",
    )
    add(
        "--out",
        type=directory,
        default=Path("shrunk"),
        metavar="DIR",
        help="where the files go (default: %(default)s)",
    )
    add(
        "--import",
        dest="modules",
        action="append",
        default=[],
        type=word,
        metavar="MODULE",
        help="a module that registers the model's own layers and functions; may be "
        "repeated",
    )
    add_threads(parser)
    add_seconds(parser, 0.5)
    add_verbose(parser)


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
            # Keras warns of an optimizer that was saved before it trained.
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
