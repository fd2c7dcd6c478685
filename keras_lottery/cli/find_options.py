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

EXPORTS = ("keras", "saved_model", "litert")
QUANTIZATIONS = ("dynamic", "int8", "float16")
# Digits are few: a higher rate, and large steps down to where tickets and their
# reinitialisations part, end within two minutes on a laptop. So many replicates usually
# show a ticket that matches (docs/concepts/verdict.md).
DIGITS_EPOCHS, DIGITS_RATE, DIGITS_SPEED = 50, 0.5, 3
DIGITS_LEVELS, DIGITS_REPLICATES = 4, 6
LEVELS, REPLICATES = 6, 3


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    try:
        load_extensions()
    except ImportError as error:
        parser.error(str(error))
    add = parser.add_argument
    formatter = "default: the model's recipe"
    add(
        "--data",
        default="digits",
        help="data set: digits, a name of TFDS, or an .npz file (%(default)s)",
    )
    add(
        "--model",
        default="lenet_300_100",
        choices=models.names(),
        metavar="NAME",
        help=f"network: {', '.join(models.names())} (%(default)s)",
    )
    add(
        "--levels",
        type=at_least(1),
        help=f"rounds of pruning ({DIGITS_LEVELS} for digits; {LEVELS})",
    )
    add(
        "--rate",
        type=share,
        help=f"share pruned each round ({DIGITS_RATE} for digits; {formatter})",
    )
    _add_choice(add, "--schedule", "geometric", SCHEDULES.names(), "sparsity by level")
    allocations = ALLOCATIONS.names()
    add(
        "--allocation",
        choices=allocations,
        metavar="NAME",
        help=f"how the sparsity is shared out among layers: {', '.join(allocations)} "
        "(global; uniform for filters and channels). layerwise has the rates of the "
        "model's recipe. Layers that its paper does not prune are left alone, except "
        "where whole filters are pruned",
    )
    add(
        "--granularity",
        type=granularity,
        default="weight",
        metavar="NAME",
        help="what is pruned together: weight, block_1x4 or of other sizes, 2:4 or "
        "other N:M, column, filter, channel, head (%(default)s); all but the last "
        "three may also be given by pattern of layers: 'conv*=2:4,dense*=weight'",
    )
    add(
        "--prunable",
        type=names_of_layers,
        metavar="NAMES",
        help="which layers are pruned: names or patterns with commas between them, or "
        f"xnnpack, the 1x1 convolutions that phones run sparsely ({formatter})",
    )
    _add_choice(
        add, "--rewind", "weights", REWINDS.names(), "what a ticket restarts from"
    )
    add(
        "--rewind-to",
        default="0",
        help="rewind point: a step, or epochs such as 2ep (%(default)s)",
    )
    add(
        "--repair",
        choices=REPAIRS.names(),
        help="change the trained weights that are left before going on from them",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=at_least(1), help="length of a training")
    length.add_argument(
        "--steps", type=at_least(1), help=f"the same in steps; {formatter}"
    )
    add("--eval-freq", type=at_least(1), help=f"steps between validations; {formatter}")
    add("--batch-size", type=at_least(1), help=f"examples per step; {formatter}")
    add("--optimizer", type=word, help=f"name of a Keras optimizer; {formatter}")
    add("--learning-rate", type=positive, help=f"its learning rate; {formatter}")
    add(
        "--no-augment",
        action="store_true",
        help="train without the crops and flips that the model's recipe may have for "
        "images of three colours",
    )
    add(
        "--replicates",
        type=at_least(1),
        help="repetitions of the whole search, from other seeds "
        f"({DIGITS_REPLICATES} for digits; {REPLICATES})",
    )
    add(
        "--controls",
        type=_controls,
        default={"reinit": 1},
        help="what is trained beside each ticket, with the number of trials: "
        f"reinit:3,random; or none. Of {', '.join(CONTROLS.names())} (reinit)",
    )
    add(
        "--mask-epochs",
        type=_mask_epochs,
        help="find the masks in shorter trainings: a number of epochs, or auto",
    )
    add(
        "--report-levels",
        type=_levels,
        metavar="LEVELS",
        help="levels whose tickets and controls are trained in full: 7,12,15 (all)",
    )
    add(
        "--engine",
        default="auto",
        choices=("auto", *ENGINES),
        help="how tickets are trained; auto takes the fastest that can (%(default)s)",
    )
    add(
        "--workers",
        type=_workers,
        default="auto",
        help="processes that train: auto, a number, 0 for none, or ray (%(default)s)",
    )
    add(
        "--resources",
        type=resources,
        metavar="NAME=NUMBER,…",
        help="what each training needs of a Ray cluster: num_gpus=0.25,num_cpus=2; "
        "other names are those of custom resources (num_cpus=1)",
    )
    add(
        "--ray-working-dir",
        type=directory,
        help="a folder that Ray sends to its machines, with modules of your own",
    )
    add(
        "--checkpoint",
        metavar="STEPS",
        help="store the state of each training every so many steps, or epochs such as "
        "1ep, so that an interrupted one continues from there (it starts again)",
    )
    _add_choice(
        add, "--criterion", "magnitude", CRITERIA.names(), "what a weight is worth"
    )
    add(
        "--seed",
        type=at_least(0),
        default=0,
        help="seed of everything that is random (%(default)s)",
    )
    add("--directory", type=directory, help="the run's directory (runs/<data>_<model>)")
    add(
        "--export",
        type=list_of("--export", EXPORTS),
        help=f"formats of the best ticket's files: {', '.join(EXPORTS)}; or none "
        "(all that the backend can write)",
    )
    add(
        "--saved-models",
        type=directory,
        default=Path("saved_models"),
        help="where these files go (%(default)s)",
    )
    add("--quantize", choices=QUANTIZATIONS, help="quantisation of the .tflite file")
    add(
        "--overwrite",
        action="store_true",
        help="delete what the run's directory holds, and start again",
    )
    add(
        "--margin",
        type=_margin,
        help="by how many percentage points of validation accuracy a ticket may be "
        "worse than the dense network and still match it; auto: 0.2, or more if the "
        "validation set is small (that of the stored run; auto)",
    )
    add(
        "--verbose",
        type=int,
        choices=(0, 1),
        default=1,
        help="0 shows no progress (%(default)s)",
    )


def _add_choice(
    add: Callable[..., Any], option: str, default: str, names: list[str], what: str
) -> None:
    add(
        option,
        default=default,
        choices=names,
        metavar="NAME",
        help=f"{what}: {', '.join(names)} ({default})",
    )


def _margin(text: str) -> float | str:
    return text if text == "auto" else not_negative(text) / 100


def _workers(text: str) -> int | str:
    return text if text in ("auto", "ray") else at_least(0)(text)


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
            f"expected controls that differ, with trials: reinit:3. Received: {text!r}"
        )
    trials = [part.partition(":")[2] or "1" for part in text.split(",")]
    return {n: at_least(1)(t) for n, t in zip(names, trials, strict=True)}
