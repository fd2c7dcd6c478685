"""`keras-lottery find`, also `scripts/find_ticket.py`, which searches for tickets."""

import argparse
import contextlib
import shlex
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lottery import checks, data
from keras_lottery.cli import find_options
from keras_lottery.cli.find_options import (
    DIGITS_EPOCHS,
    DIGITS_LEVELS,
    DIGITS_RATE,
    DIGITS_REPLICATES,
    DIGITS_SPEED,
    EXPORTS,
    LEVELS,
    REPLICATES,
)
from keras_lottery.cli.parsing import Parser
from keras_lottery.cli.pretrained import give_weights, read_weights
from keras_lottery.files import write_sealed
from keras_lottery.papers import models
from keras_lottery.pruning import default_allocation
from keras_lottery.search import LotteryTicketSearch, Run
from keras_lottery.search.results import objective_of
from keras_lottery.search.store import Store
from keras_lottery.ship import export
from keras_lottery.ship.export.files import REPORTS, saved_model_path
from keras_lottery.ship.export.in_tensorflow import has_tensorflow
from keras_lottery.ship.export.other_runtimes import (
    NEEDED,
    check_installed,
    openvino_path,
)
from keras_lottery.study import plots
from keras_lottery.study.report.tables import verdict_table
from keras_lottery.tables import text_table
from keras_lottery.tickets import Ticket, grouping
from keras_lottery.tickets.allocation import ALLOCATIONS, AllocationLike, Layerwise
from keras_lottery.tickets.grouping import Granularity
from keras_lottery.tickets.schedules import SCHEDULES

if TYPE_CHECKING:
    import keras
    import pandas as pd

HELP = "search for winning tickets, and export the best one"


def add_options(parser: Parser) -> None:
    """Adds the options of the command, and sets the function that it runs."""
    parser.set_defaults(function=_find)
    find_options.add_options(parser)


def _exports(asked: list[str] | None) -> list[str]:
    """The formats to export, checked before anything is trained."""
    if asked is None:
        return ["keras", "saved_model", "litert"] if has_tensorflow() else ["keras"]
    if set(asked) - {"keras"} and not has_tensorflow():
        raise ValueError(
            "argument --export: all but keras need TensorFlow, which is not installed. "
            "Install it (pip install tensorflow), or choose keras or none."
        )
    for format in NEEDED.keys() & asked:
        check_installed(format, f"argument --export: {format}")
    return asked


def _check_places(directory: Path, exports: list[str]) -> None:
    """Raises ValueError if something else exists where files are to be written."""
    if not exports:
        return
    for format in exports:
        place = directory / EXPORTS[format]
        if format == "saved_model":
            saved_model_path(place)
        elif format == "openvino":
            openvino_path(place)
        else:
            checks.path("--saved-models", place)
    checks.path("--saved-models", directory / REPORTS)


def _find(options: argparse.Namespace) -> None:
    options.export = _exports(options.export)
    if options.quantize and options.export and "litert" not in options.export:
        raise ValueError(
            "argument --quantize: expected litert among the formats of --export, as "
            f"only its file is quantised. Received: --quantize {options.quantize}, "
            f"--export {','.join(options.export)}"
        )
    if (options.weights is None) != (options.pretrained is None):
        given = "--pretrained" if options.weights is None else "--weights"
        raise ValueError(
            f"argument {given}: expected --weights MODEL.keras and --pretrained LAYERS "
            "together, such as --pretrained 'embeddings,block_*'. Received: "
            f"{given} alone."
        )
    weights = options.weights and read_weights(options.weights)
    name = f"{Path(options.data).stem}_{options.model}"
    run_directory = options.directory or Path("runs") / name
    total, part = _part(options, run_directory)
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
        # The recipes are made for CIFAR-10, and flip images. Most grey images would
        # change their meaning if they were flipped.
        recipe = replace(recipe, augment=False)
    how = options.allocation, options.criterion, options.granularity
    allocation = _allocation(*how, rate, recipe)
    if options.verbose:
        if allocation is not None and (left := ALLOCATIONS.look_up(allocation).exclude):
            print(f"Not pruned, as in the model's paper: {', '.join(left)}")
        if recipe.augment:
            print("Training crops and flips the images (--no-augment: it does not)")

    def build() -> "keras.Model":
        model = models.build(
            builder,
            recipe,
            splits.input_shape,
            splits.classes,
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
        )
        if weights is not None:
            give_weights(model, options.pretrained, weights)
        return model

    search = LotteryTicketSearch(
        build,
        schedule=SCHEDULES.look_up(options.schedule)(rate, options.levels or levels),
        criterion=options.criterion,
        allocation=allocation,
        granularity=options.granularity,
        prunable=options.prunable or recipe.prunable,
        pretrained=options.pretrained or False,
        rewind=options.rewind,
        rewind_to=options.rewind_to,
        repair=options.repair,
        report_levels=options.report_levels,
        controls=options.controls,
        replicates=total or replicates,
        seed=options.seed,
        directory=run_directory,
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
        part=part,
        verbose=options.verbose,
    )
    with search.store.alone():
        _note_card(search.store, options, whole=part is None)
    if part is None:
        # Several processes may finish at the same time.
        with search.store.exporting():
            _write(search, results, splits, options, name)
    elif options.verbose:
        print(f"{search.directory}: {_state(search)}")


def _part(
    options: argparse.Namespace, directory: Path
) -> tuple[int | None, list[int] | None]:
    """The number of replicates of the search, and those that this process trains."""
    total, part = options.replicates, options.replicate
    if isinstance(total, range) and part is not None:
        raise ValueError(
            f"argument --replicate: expected a number of --replicates, not a part of "
            f"them. Received: --replicates {total.start}:{total.stop}"
        )
    if not isinstance(total, range) and part is None:
        return total, None
    numbers = total if isinstance(total, range) else range(part, part + 1)
    if isinstance(total, int):
        return total, [*numbers]
    there = 0
    with contextlib.suppress(FileNotFoundError):
        there = Run(directory).settings["replicates"]
    return max(numbers.stop, there), [*numbers]


def _state(search: LotteryTicketSearch) -> str:
    """What remains to be done after a part of a search, in words."""
    if missing := search.missing():
        return search.explain_missing(missing)
    return (
        "all trainings are there. Run the command for all --replicates, without "
        "--replicate, for the table and the exported files"
    )


def _note_card(store: Store, options: argparse.Namespace, whole: bool) -> None:
    """Notes the data and the model for `keras-lottery deploy` from any folder."""
    if whole or not store.card.exists():
        source = Path(options.data)
        named = str(source.resolve()) if source.suffix == ".npz" else options.data
        card = {"data": named, "model": options.model, "command": _command(options)}
        write_sealed(store.card, card)


def _write(
    search: LotteryTicketSearch,
    results: "pd.DataFrame",
    splits: data.Splits,
    options: argparse.Namespace,
    name: str,
) -> None:
    """Writes the figure, the table and the exported files of a complete search."""
    directory = search.directory
    plots.plot_search(results, directory / "figure.png")
    best = search.best()
    table = level_table(results, search.verdict())
    (directory / "table.txt").write_text(f"{table}\n\n{best}\n", "utf-8")
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
    """The resources of a Ray cluster that each training needs."""
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
    """The allocation, without the layers that the recipe does not prune."""
    # Filters are pruned together with those to which shortcuts tie them, so no layer
    # can have a rate of its own.
    kind = grouping.get(granularity)
    if kind.across_layers:
        return Layerwise(rate=rate) if name == "layerwise" else name
    if name == "layerwise":
        # The user's rate scales those of the recipe: 20 % and 10 % become, for example,
        # 40 % and 20 %.
        highest = max(recipe.rates.values())
        rates = {p: r * rate / highest for p, r in recipe.rates.items()}
        return Layerwise(rates, rate, exclude=recipe.left_alone)
    if not recipe.left_alone:
        return name
    allocation = ALLOCATIONS.look_up(name or default_allocation(criterion, granularity))
    left_out = allocation.leaving_out(recipe.left_alone)
    # A user's own function leaves out layers by itself, and is known by its name.
    return name if left_out == allocation else left_out


def level_table(results: "pd.DataFrame", verdict: "pd.DataFrame") -> str:
    """The report's table by level for a terminal, followed by what its words mean."""
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
    for format, name in EXPORTS.items():
        if format not in options.export:
            continue
        how: dict[str, Any] = {"test_data": splits.test}
        if format == "litert":
            how["quantize"] = options.quantize
            how["representative_data"] = splits.x_train
        write = getattr(export, f"to_{format}")
        reports.append(write(ticket, directory / name, **how))
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
