"""Tries and measures files of a run's tickets, and writes the best one."""

import os
import shlex
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_lottery import checks
from keras_lottery import data as datasets
from keras_lottery.engines.objective import Objective, named
from keras_lottery.search import Run
from keras_lottery.search.best import median_replicate
from keras_lottery.search.settings import describe_data
from keras_lottery.ship.deploy.candidates import candidates
from keras_lottery.ship.deploy.choose import (
    PREFER,
    choose,
    default_margin,
    pareto,
    tickets_to_try,
)
from keras_lottery.ship.deploy.deployment import (
    Deployment,
    check_backend,
    check_target,
    hand_over,
    in_short,
    places,
    quality_of,
    table_of,
    tried_files,
)
from keras_lottery.ship.deploy.files import check_timing
from keras_lottery.ship.deploy.load import load
from keras_lottery.ship.deploy.quality import Quality
from keras_lottery.ship.deploy.show import as_records
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.tickets import Ticket

OF_A_TICKET = "level", "replicate", "density"
"""The columns of the table that tell from which ticket a file was made."""


def deploy(
    run: str | os.PathLike[str],
    target: str = "mobile",
    data: str | datasets.Splits | None = None,
    *,
    prefer: str = "latency",
    margin: float | None = None,
    objective: str | Objective | None = None,
    directory: str | os.PathLike[str] = "saved_models",
    threads: int = 1,
    seconds: float = 0.5,
    say: Callable[[str], object] = lambda line: None,
) -> Deployment:
    """Writes the best file that can be made from a run's tickets.

    The dense network, the run's best ticket (`Run.best`, with the run's margin and
    with this one) and its most accurate ticket are exported in every format that suits
    the target, as they are and compacted. Every file is run, compared with its Keras
    model, and measured. The choice is made on validation data; results on test data are
    reported. Tickets are compared by the search's objective, files by the same or by
    another of the model's metrics.

    Args:
        run: the directory of a search.
        target: `"mobile"`, .tflite files; `"server"`, SavedModels;
            `"microcontroller"`, dense .tflite files; `"onnx"`, .onnx files; or
            `"openvino"`, directories for OpenVINO.
        data: the run's data set: a name for `kl.data.load`; an .npz file of any arrays,
            with `x_train`, `y_train` and the same for `validation` and `test`; or
            `Splits`, of dictionaries of arrays by name for a model of several inputs or
            outputs. By default the data that `keras-lottery find` noted in the run.
        prefer: what is minimised among the files that are accurate enough:
            `"latency"`, `"size"` on disk, or `"download"`, the size after gzip.
        margin: how much worse than the best file on the validation data a file may be,
            in the objective's unit; if files are compared by the search's objective,
            also how much worse than the dense network a ticket may be. By default
            0.005 for an accuracy, which is half a percentage point, and for another
            metric a hundredth of the dense network's value.
        objective: the metric by which files are compared: one of the model's, named as
            in Keras's logs, such as `"val_auc"`. By default that of the search.
        directory: where the file goes: `<run's name>/mobile.tflite`, or `/server`, with
            a card of the same name, ending in `.json`.
        threads, seconds: same as `benchmark`.
        say: called with a line about each file that is tried.

    Raises:
        FileNotFoundError: if the run or the data do not exist.
        ImportError: if the target's runtime is not installed.
        ValueError: if an argument is out of range, the run has no trained ticket, its
            data are unknown, or the backend is not TensorFlow.
        ExportError: if no file works.
    """
    checks.existing("run", run)
    if data is not None:
        form = "the name of a data set, an .npz file or Splits"
        checks.instance("data", data, str | datasets.Splits, form)
        if isinstance(data, str):
            checks.text("data", data)
    check_target(target)
    checks.choice("prefer", prefer, list(PREFER))
    if margin is not None:
        checks.number("margin", margin, 0)
    asked = None if objective is None else named(objective)
    checks.directory("directory", directory)
    check_timing(threads, seconds)
    checks.function("say", say)
    check_backend("deploy", ", which runs of every backend can be read on")
    search = Run.load(run)
    best, results = search.best(), search.results()
    source, splits = _data(search, data)
    dense = median_replicate(results, 0, search.objective)
    model = _trained(search, 0, dense).trained_model()
    validation, test = (
        quality_of(model, part, asked or search.objective)
        for part in (splits.validation, splits.test)
    )
    objective = validation.objective
    if margin is None:
        margin = default_margin(objective, validation.value)
    same = objective.name == search.objective.name
    found = (best, search.best(margin)) if same else (best,)
    tickets = tickets_to_try(results, found, search.objective)
    file, card = places(Path(directory, search.name), target)
    with tempfile.TemporaryDirectory() as folder:
        examples = splits.x_train
        tried, failed = _try(
            search, tickets, target, examples, validation, threads, folder, say
        )
        say(f"measuring {len(tried)} files")
        columns = (*OF_A_TICKET, f"validation_{objective.metric}")
        table = table_of(tried, columns, test, threads, seconds)
        table["pareto"] = pareto(table, objective)
        row = choose(table, prefer, margin, objective)
        table["chosen"] = table.index == row
        command = [
            *("keras-lottery", "deploy", str(run), "--target", target),
            *("--data", source, "--prefer", prefer),
            *("--margin", f"{objective.scale * margin:g}"),
            *(() if asked is None else ("--objective", objective.name)),
            *("--saved-models", str(directory)),
            *("--threads", str(threads), "--seconds", f"{seconds:g}"),
        ]
        chosen = as_records(table)[row]
        note = {
            "made": {
                "run": str(run),
                **{key: chosen[key] for key in OF_A_TICKET},
                "steps": list(tried[row]["made"]),
            },
            "best_ticket": str(best),
            "rule": f"least {prefer} within {objective.amount(margin)} of the best "
            f"validation {objective.words}",
            "data": source,
            "threads": threads,
            "command": shlex.join(command),
            "tried": as_records(table),
            "failed": failed,
        }
        hand_over(tried[row], chosen, file, card, note)
    return Deployment(
        file=file, card=card, table=table, failed=failed, objective=objective
    )


def _try(
    run: Run,
    tickets: Sequence[tuple[int, int]],
    target: str,
    examples: Any,
    quality: Quality,
    threads: int,
    folder: str,
    say: Callable[[str], object],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Writes and measures the files of each ticket; also returns why others failed."""
    tried: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for level, replicate in tickets:
        ticket = _trained(run, level, replicate)
        name = f"level_{level:02}" if level else "dense"
        model = ticket.trained_model()
        row = {
            "level": level,
            "replicate": replicate,
            "density": ticket.masks.density,
        }
        forms = candidates(name, model, target, examples, failed)
        made = tried_files(forms, Path(folder), target, quality, threads, failed, say)
        tried += [{**row, **each} for each in made]
    failed = {name: in_short(reason) for name, reason in failed.items()}
    if not tried:
        raise ExportError(f"No file of '{run.directory}' works: {failed}")
    return tried, failed


def _trained(run: Run, level: int, replicate: int) -> Ticket:
    """Reads a ticket to export, without the weights from which its training started."""
    return Ticket(
        run.masks(level, replicate),
        run.initial(replicate),
        trained=run.trained(level, replicate),
        architecture=run.settings["architecture"],
    )


def _data(run: Run, given: str | datasets.Splits | None) -> tuple[str, datasets.Splits]:
    """The name of the data, and the data, which must be those of the run."""
    name = run.data if given is None else given
    if name is None:
        raise ValueError(
            f"Expected `data`, since the run '{run.directory}' does not say which data "
            "it was trained on (`keras-lottery find` notes it). Received: data=None. "
            "Pass a name, such as --data mnist."
        )

    def fit(splits: datasets.Splits) -> bool:
        return bool(describe_data(splits.train) == run.settings["train"])

    splits = name if isinstance(name, datasets.Splits) else load(name, fit)
    if not fit(splits):
        message = (
            f"The data {splits.name!r} are not those that '{run.directory}' was "
            "trained on."
        )
        if given is None:
            raise ValueError(f"{message} Pass others as `data`.")
        warnings.warn(message, stacklevel=3)
    return splits.name if name is splits else str(name), splits
