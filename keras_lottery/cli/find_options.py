"""The options of `keras-lottery find`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_lottery.cli.parsing import (
    Parser,
    at_least,
    directory,
    granularity,
    keras_file,
    list_of,
    names_of_layers,
    not_negative,
    positive,
    resources,
    share,
    word,
)
from keras_lottery.engines import ENGINES
from keras_lottery.papers import models
from keras_lottery.registry import load_extensions
from keras_lottery.tickets.allocation import ALLOCATIONS
from keras_lottery.tickets.controls import CONTROLS
from keras_lottery.tickets.criteria import CRITERIA
from keras_lottery.tickets.repair import REPAIRS
from keras_lottery.tickets.rewind import REWINDS
from keras_lottery.tickets.schedules import SCHEDULES

EXPORTS = {
    "keras": "ticket.keras",
    "saved_model": "saved_model",
    "litert": "ticket.tflite",
    "onnx": "ticket.onnx",
    "openvino": "openvino",
}
"""The formats of exported files, and the files' names."""
QUANTIZATIONS = ("dynamic", "int8", "float16")
# The digits are a small data set. With a higher rate, and large steps down to the
# sparsities at which tickets and their reinitialisations differ, a search ends within
# two minutes on a laptop. This many replicates usually show a ticket that matches
# (docs/concepts/verdict.md).
DIGITS_EPOCHS, DIGITS_RATE, DIGITS_SPEED = 50, 0.5, 3
DIGITS_LEVELS, DIGITS_REPLICATES = 4, 6
LEVELS, REPLICATES = 6, 3


def add_options(parser: Parser) -> None:
    """Adds the options of the command."""
    try:
        load_extensions()
    except ImportError as error:
        parser.error(str(error))
    recipe = "default: that of the model's recipe"
    add = parser.add_argument_group("network and data").add_argument
    add(
        "--data",
        default="digits",
        help="data set: digits, a name of TFDS, or an .npz file with x_train, y_train, "
        "x_test and y_test (default: %(default)s)",
    )
    add(
        "--model",
        default="lenet_300_100",
        choices=models.names(),
        metavar="NAME",
        help=f"network: {', '.join(models.names())} (default: %(default)s)",
    )
    add(
        "--no-augment",
        action="store_true",
        help="do not crop and flip colour images in training, as some recipes do",
    )
    add(
        "--weights",
        type=keras_file,
        metavar="MODEL.keras",
        help="with --pretrained, a model with weights that were trained before, under "
        "the same names",
    )
    add(
        "--pretrained",
        type=names_of_layers,
        metavar="LAYERS",
        help="layers that take their weights from --weights, in each replicate: names "
        "or patterns with commas between them. The others, such as a new head, are "
        "initialised (default: all of them)",
    )
    add = parser.add_argument_group("search").add_argument
    add(
        "--levels",
        type=at_least(1),
        help=f"rounds of pruning (default: {DIGITS_LEVELS} for digits, else {LEVELS})",
    )
    add(
        "--rate",
        type=share,
        help="share of the remaining weights that each round prunes (default: "
        f"{DIGITS_RATE} for digits, else that of the model's recipe)",
    )
    _add_choice(
        add, "--schedule", "geometric", SCHEDULES.names(), "how --rate adds up by level"
    )
    _add_choice(
        add, "--rewind", "weights", REWINDS.names(), "what a ticket restarts from"
    )
    add(
        "--rewind-to",
        default="0",
        metavar="STEP",
        help="rewind point: a step, or epochs such as 2ep (default: %(default)s)",
    )
    add(
        "--repair",
        choices=REPAIRS.names(),
        metavar="NAME",
        help="adjust the remaining weights after pruning, with --rewind learning_rate "
        f"or fine_tune: {', '.join(REPAIRS.names())} (default: none)",
    )
    add(
        "--controls",
        type=_controls,
        default={"reinit": 1},
        metavar="NAMES",
        help="networks to train beside each ticket, with the number of trials: "
        f"reinit:3,random; or none. Names: {', '.join(CONTROLS.names())} (default: "
        "reinit)",
    )
    add(
        "--replicates",
        type=_replicates,
        metavar="NUMBER",
        help="repetitions of the whole search, each from another seed (default: "
        f"{DIGITS_REPLICATES} for digits, else {REPLICATES}); FROM:TO runs only those "
        "numbered FROM to TO-1, see --replicate",
    )
    add(
        "--replicate",
        type=at_least(0),
        metavar="NUMBER",
        help="run only this replicate, beside other processes in the same directory, "
        "and export nothing",
    )
    add(
        "--margin",
        type=_margin,
        help="how many percentage points of validation accuracy a ticket may be below "
        "the dense network and still match it; auto: 0.2, or more if the validation "
        "set is small (default: that of the stored run, else auto)",
    )
    add(
        "--mask-epochs",
        type=_mask_epochs,
        metavar="EPOCHS",
        help="find the masks in shorter trainings: a number of epochs, or auto "
        "(default: in the tickets' own trainings)",
    )
    add(
        "--report-levels",
        type=_levels,
        metavar="LEVELS",
        help="levels whose tickets and controls are trained in full: 7,12,15 "
        "(default: all)",
    )
    add(
        "--seed",
        type=at_least(0),
        default=0,
        help="seed of everything that is random (default: %(default)s)",
    )
    add = parser.add_argument_group("pruning").add_argument
    _add_choice(
        add, "--criterion", "magnitude", CRITERIA.names(), "how weights are scored"
    )
    allocations = ALLOCATIONS.names()
    add(
        "--allocation",
        choices=allocations,
        metavar="NAME",
        help=f"how sparse each layer becomes: {', '.join(allocations)} (default: "
        "global, or uniform for filters and channels). layerwise uses the rates of the "
        "model's recipe. Layers that the model's paper does not prune are left alone, "
        "except where whole filters are pruned",
    )
    add(
        "--granularity",
        type=granularity,
        default="weight",
        metavar="NAME",
        help="what is pruned together: weight, block_1x4 or another size, 2:4 or "
        "another N:M, column, filter, channel, head (default: %(default)s). All but "
        "the last three may differ by layer: 'conv*=2:4,dense*=weight'",
    )
    add(
        "--prunable",
        type=names_of_layers,
        metavar="NAMES",
        help="layers to prune: names or patterns with commas between them, or xnnpack "
        f"for the 1x1 convolutions that phones run sparsely ({recipe})",
    )
    group = parser.add_argument_group("training")
    add = group.add_argument
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        type=at_least(1),
        help=f"length of each training (default: {DIGITS_EPOCHS} for digits, else that "
        "of the model's recipe)",
    )
    length.add_argument("--steps", type=at_least(1), help="the same in optimizer steps")
    add(
        "--eval-freq",
        type=at_least(1),
        metavar="STEPS",
        help=f"steps between validations ({recipe})",
    )
    add("--batch-size", type=at_least(1), help=f"examples per step ({recipe})")
    add("--optimizer", type=word, help=f"name of a Keras optimizer ({recipe})")
    add(
        "--learning-rate",
        type=positive,
        metavar="RATE",
        help=f"learning rate ({recipe}, times {DIGITS_SPEED} for digits)",
    )
    add(
        "--engine",
        default="auto",
        choices=("auto", *ENGINES),
        help="how tickets are trained; auto chooses the fastest engine that supports "
        "the model and data (default: %(default)s)",
    )
    add(
        "--workers",
        type=_workers,
        default="auto",
        help="number of training processes: auto, a number, 0 to train in this one, or "
        "ray for a Ray cluster (default: %(default)s)",
    )
    add(
        "--resources",
        type=resources,
        metavar="NAME=NUMBER,…",
        help="with --workers ray, what each training needs: num_gpus=0.25,num_cpus=2; "
        "other names are custom resources (default: num_cpus=1)",
    )
    add(
        "--ray-working-dir",
        type=directory,
        metavar="DIR",
        help="with --workers ray, a folder with modules of your own that Ray sends to "
        "its machines",
    )
    add(
        "--checkpoint",
        metavar="STEPS",
        help="store the state of each training every so many steps, or epochs such as "
        "1ep, so that an interrupted training continues from there (default: it starts "
        "again)",
    )
    add = parser.add_argument_group("output").add_argument
    add(
        "--directory",
        type=directory,
        metavar="DIR",
        help="where the run is stored; the same command continues an unfinished run "
        "(default: runs/<data>_<model>)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="delete what the run's directory holds, and start again",
    )
    add(
        "--export",
        type=list_of("--export", [*EXPORTS]),
        metavar="FORMATS",
        help=f"formats of the best ticket's files: {','.join(EXPORTS)}, or none "
        "(default: keras, and with TensorFlow saved_model and litert)",
    )
    add(
        "--saved-models",
        type=directory,
        default=Path("saved_models"),
        metavar="DIR",
        help="where these files go (default: %(default)s)",
    )
    add(
        "--quantize",
        choices=QUANTIZATIONS,
        help="quantisation of the .tflite file (default: none)",
    )
    add(
        "--verbose",
        type=int,
        choices=(0, 1),
        default=1,
        help="0 hides the progress (default: %(default)s)",
    )


def _add_choice(
    add: Callable[..., Any], option: str, default: str, names: list[str], what: str
) -> None:
    add(
        option,
        default=default,
        choices=names,
        metavar="NAME",
        help=f"{what}: {', '.join(names)} (default: {default})",
    )


def _margin(text: str) -> float | str:
    return text if text == "auto" else not_negative(text) / 100


def _workers(text: str) -> int | str:
    return text if text in ("auto", "ray") else at_least(0)(text)


def _replicates(text: str) -> int | range:
    first, colon, end = text.partition(":")
    if not colon:
        return at_least(1)(text)
    start = at_least(0)(first)
    return range(start, at_least(start + 1)(end))


def _mask_epochs(text: str) -> float | str:
    return text if text == "auto" else positive(text)


def _levels(text: str) -> list[int]:
    return [at_least(1)(word) for word in text.split(",")]


def _controls(text: str) -> dict[str, int]:
    names = [part.partition(":")[0] for part in text.split(",")]
    list_of("--controls", CONTROLS.names())(
        "none" if text == "none" else ",".join(names)
    )
    if text == "none":
        return {}
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            "expected each control once, with its number of trials, such as "
            f"reinit:3,random. Received: {text!r}"
        )
    trials = [part.partition(":")[2] or "1" for part in text.split(",")]
    return {n: at_least(1)(t) for n, t in zip(names, trials, strict=True)}
