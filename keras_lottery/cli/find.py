"""`keras-lottery find`, which is also `scripts/find_ticket.py`."""

import argparse
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lottery import checks
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
from keras_lottery.files import write_sealed
from keras_lottery.papers import data, models
from keras_lottery.pruning import default_allocation
from keras_lottery.registry import load_extensions
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.results import objective_of
from keras_lottery.search.store import Store
from keras_lottery.ship import export
from keras_lottery.ship.export.files import REPORTS, saved_model_path
from keras_lottery.ship.export.in_tensorflow import has_tensorflow
from keras_lottery.study import plots
from keras_lottery.study.report.tables import verdict_table
from keras_lottery.tables import text_table
from keras_lottery.tickets import Ticket, grouping
from keras_lottery.tickets.allocation import ALLOCATIONS, AllocationLike, Layerwise
from keras_lottery.tickets.controls import CONTROLS
from keras_lottery.tickets.criteria import CRITERIA
from keras_lottery.tickets.grouping import Granularity
from keras_lottery.tickets.repair import REPAIRS
from keras_lottery.tickets.rewind import REWINDS
from keras_lottery.tickets.schedules import SCHEDULES

if TYPE_CHECKING:
    import keras
    import pandas as pd

HELP = "find a winning ticket and export it"
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
    parser.set_defaults(function=_find)
    try:
        load_extensions()
    except ImportError as error:
        parser.error(str(error))
    add = parser.add_argument
    formatter = "default: the model's recipe"
    add("--data", default="digits", help="digits, a TFDS name, or an .npz file")
    add("--model", default="lenet_300_100", choices=models.names())
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
    _add_choice(add, "--schedule", "geometric", SCHEDULES.names(), "of the levels")
    allocations = ALLOCATIONS.names()
    add(
        "--allocation",
        choices=allocations,
        metavar="NAME",
        help=f"how layers share what is left: {', '.join(allocations)} (global; "
        "uniform for filters and channels); layerwise has the recipe's rates. Layers "
        "that the model's paper does not prune are left alone, but where whole filters "
        "are pruned",
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
    _add_choice(add, "--rewind", "weights", REWINDS.names(), "see the documentation")
    add("--rewind-to", default="0", help="a step, or epochs such as 2ep (%(default)s)")
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
    add("--batch-size", type=at_least(1), help=formatter)
    add("--optimizer", type=word, help=formatter)
    add("--learning-rate", type=positive, help=formatter)
    add(
        "--no-augment",
        action="store_true",
        help="train without the crops and flips that the model's recipe may have for "
        "images of three colours",
    )
    add(
        "--replicates",
        type=at_least(1),
        help=f"({DIGITS_REPLICATES} for digits; {REPLICATES})",
    )
    add(
        "--controls",
        type=_controls,
        default={"reinit": 1},
        help=f"of {', '.join(CONTROLS.names())}; with trials: reinit:3,random; "
        "none (reinit)",
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
        help="whose tickets and controls are trained in full, such as 7,12,15 (all)",
    )
    add("--engine", default="auto", choices=("auto", *ENGINES), help="(%(default)s)")
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
        help="store the state of trainings after so many steps, or epochs such as 1ep, "
        "and go on from there once interrupted (they begin anew)",
    )
    _add_choice(
        add, "--criterion", "magnitude", CRITERIA.names(), "what a weight is worth"
    )
    add("--seed", type=at_least(0), default=0, help="(%(default)s)")
    add("--directory", type=directory, help="the run's directory (runs/<data>_<model>)")
    add(
        "--export",
        type=list_of("--export", EXPORTS),
        help=f"of {', '.join(EXPORTS)}; none (all that the backend can)",
    )
    add(
        "--saved-models",
        type=directory,
        default=Path("saved_models"),
        help="(%(default)s)",
    )
    add("--quantize", choices=QUANTIZATIONS, help="of the .tflite file")
    add("--overwrite", action="store_true", help="start anew in the run's directory")
    add(
        "--margin",
        type=_margin,
        help="percentage points of validation accuracy that a ticket may lie below the "
        "dense network and match it; auto: 0.2, or more where the validation set is "
        "small (what the run was begun with; auto)",
    )
    add("--verbose", type=int, choices=(0, 1), default=1, help="(%(default)s)")


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


def _exports(asked: list[str] | None) -> list[str]:
    """What to export, checked before anything is trained."""
    if has_tensorflow():
        return list(EXPORTS) if asked is None else asked
    if set(asked or ()) - {"keras"}:
        raise ValueError(
            "argument --export: saved_model and litert are written by TensorFlow. "
            "Received: no TensorFlow (pip install it, or choose keras or none)"
        )
    return ["keras"] if asked is None else asked


def _check_places(directory: Path, exports: list[str]) -> None:
    """Raises ValueError if something else is where files are to go."""
    if not exports:
        return
    for name in ("ticket.keras", "ticket.tflite", REPORTS):
        checks.path("--saved-models", directory / name)
    saved_model_path(directory / "saved_model")


def _find(options: argparse.Namespace) -> None:
    options.export = _exports(options.export)
    if options.quantize and options.export and "litert" not in options.export:
        raise ValueError(
            "argument --quantize: expected --export litert, whose file it is of. "
            f"Received: --quantize {options.quantize}, --export "
            f"{','.join(options.export)}"
        )
    name = f"{Path(options.data).stem}_{options.model}"
    _check_places(options.saved_models / name, options.export)
    builder, recipe = models.get(options.model), models.recipe(options.model)
    splits = data.load(options.data)
    rate, epochs, steps = options.rate, options.epochs, options.steps
    eval_freq: int | str = recipe.eval_freq
    levels, replicates = LEVELS, REPLICATES
    if options.data == "digits":
        levels, replicates = DIGITS_LEVELS, DIGITS_REPLICATES
        recipe = replace(recipe, learning_rate=DIGITS_SPEED * recipe.learning_rate)
        rate, eval_freq = rate or DIGITS_RATE, "epoch"
        epochs = epochs or (None if steps else DIGITS_EPOCHS)
    if epochs is None and steps is None:
        steps = recipe.steps
    rate = rate or max(recipe.rates.values())
    if options.no_augment or splits.input_shape[-1] != 3:
        # The recipes are those of CIFAR-10: most grey images have a left and a right.
        recipe = replace(recipe, augment=False)
    how = options.allocation, options.criterion, options.granularity
    allocation = _allocation(*how, rate, recipe)
    if options.verbose:
        if allocation is not None and (left := ALLOCATIONS.look_up(allocation).exclude):
            print(f"Not pruned, as in the model's paper: {', '.join(left)}")
        if recipe.augment:
            print("Training crops and flips the images (--no-augment: it does not)")

    def build() -> "keras.Model":
        return models.build(
            builder,
            recipe,
            splits.input_shape,
            splits.classes,
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
        )

    search = LotteryTicketSearch(
        build,
        schedule=SCHEDULES.look_up(options.schedule)(rate, options.levels or levels),
        criterion=options.criterion,
        allocation=allocation,
        granularity=options.granularity,
        prunable=options.prunable or recipe.prunable,
        rewind=options.rewind,
        rewind_to=options.rewind_to,
        repair=options.repair,
        report_levels=options.report_levels,
        controls=options.controls,
        replicates=options.replicates or replicates,
        seed=options.seed,
        directory=options.directory or Path("runs") / name,
        engine=options.engine,
        workers=options.workers,
        resources=_resources(options),
        overwrite=options.overwrite,
    )
    results = search.search(
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        batch_size=options.batch_size or recipe.batch_size,
        epochs=epochs,
        steps=steps,
        eval_freq=options.eval_freq or eval_freq,
        mask_epochs=options.mask_epochs,
        margin=options.margin,
        checkpoint=options.checkpoint,
        verbose=options.verbose,
    )
    directory = search.directory
    plots.plot_search(results, directory / "figure.png")
    best = search.best()
    table = level_table(results, search.verdict())
    (directory / "table.txt").write_text(f"{table}\n\n{best}\n", "utf-8")
    # For `keras-lottery deploy`, from whatever folder.
    source = Path(options.data)
    named = str(source.resolve()) if source.suffix == ".npz" else options.data
    card = {"data": named, "model": options.model, "command": _command(options)}
    write_sealed(search.store.card, card)
    if options.verbose:
        print(table)
        print(f"\n{directory}: results.csv, table.txt, figure.png")
    if options.export:
        ticket = search.ticket(best.level, best.replicate)
        if options.verbose:
            print(f"Exported: level {best.level}, replicate {best.replicate}, the "
                "median of its replicates on the validation data")  # fmt: skip
        _export(ticket, search.store, splits, options.saved_models / name, options)
    if options.verbose:
        print(f"\n{best}")


def _resources(options: argparse.Namespace) -> dict[str, Any] | None:
    """What trainings need of a Ray cluster."""
    if options.ray_working_dir is None:
        return options.resources
    folder = str(options.ray_working_dir)
    return {**(options.resources or {}), "runtime_env": {"working_dir": folder}}


def _allocation(
    name: str | None,
    criterion: str,
    granularity: Granularity,
    rate: float,
    recipe: models.Recipe,
) -> AllocationLike | None:
    """The allocation, without the layers that the recipe leaves alone."""
    # Filters are pruned with those that shortcuts tie them to, by no layer's own rate.
    kind = grouping.get(granularity)
    if kind.across_layers:
        return Layerwise(rate=rate) if name == "layerwise" else name
    if name == "layerwise":
        # A rate of the user's scales the recipe's: 20 % and 10 % become 40 % and 20 %.
        highest = max(recipe.rates.values())
        rates = {p: r * rate / highest for p, r in recipe.rates.items()}
        return Layerwise(rates, rate, exclude=recipe.left_alone)
    if not recipe.left_alone:
        return name
    allocation = ALLOCATIONS.look_up(name or default_allocation(criterion, granularity))
    left_out = allocation.leaving_out(recipe.left_alone)
    # A function of the user's own sees to that itself, and is known by its name.
    return name if left_out == allocation else left_out


def level_table(results: "pd.DataFrame", verdict: "pd.DataFrame") -> str:
    """The report's table by level, for a terminal; under it what its words mean."""
    table = verdict_table(results, verdict, objective_of(results))
    narrow = dict.fromkeys(table.header, 17) | {"verdict": 30}
    text = text_table(table.rows, table.header, wrap=narrow)
    return f"{text}\n\n{textwrap.fill(table.caption, 88)}"


def _export(
    ticket: Ticket,
    store: Store,
    splits: data.Splits,
    directory: Path,
    options: argparse.Namespace,
) -> None:
    reports = []
    if "keras" in options.export:
        path = directory / "ticket.keras"
        reports.append(export.to_keras(ticket, path, test_data=splits.test))
    if "saved_model" in options.export:
        path = directory / "saved_model"
        reports.append(export.to_saved_model(ticket, path, test_data=splits.test))
    if "litert" in options.export:
        reports.append(
            export.to_litert(
                ticket,
                directory / "ticket.tflite",
                quantize=options.quantize,
                representative_data=splits.x_train,
                test_data=splits.test,
            )
        )
    card = {
        "level": ticket.card["level"],
        "density": ticket.masks.density,
        "exports": [report.to_dict() for report in reports],
    }
    write_sealed(directory / REPORTS, card)
    write_sealed(store.exports, card)


def _command(options: argparse.Namespace) -> str:
    given = options.arguments
    given = given[1:] if given[:1] == ["find"] else given
    return shlex.join(["keras-lottery", "find", *given])


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
