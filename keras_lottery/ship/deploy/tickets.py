"""From a run to the file that ships: what is tried, measured and written."""

import os
import platform
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery import checks
from keras_lottery.engines.objective import ACCURACY, Objective, named
from keras_lottery.files import write_sealed
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.papers import data as datasets
from keras_lottery.search import Run
from keras_lottery.search.best import median_replicate
from keras_lottery.search.settings import describe_data, versions
from keras_lottery.ship.deploy.candidates import WAYS, candidates
from keras_lottery.ship.deploy.choose import (
    PREFER,
    choose,
    default_margin,
    pareto,
    tickets_to_try,
)
from keras_lottery.ship.deploy.files import check_timing, measured
from keras_lottery.ship.deploy.load import load
from keras_lottery.ship.deploy.quality import Quality, by_classes, by_model
from keras_lottery.ship.deploy.show import as_records, as_text
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.files import digests_of, saved_model_path, staged
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = {"mobile": ".tflite", "server": ""}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What was tried, and what was written; `str()` gives the Pareto table.

    Attributes:
        file: the file that was chosen, or a SavedModel's directory.
        card: a JSON file beside it: how it was made, what was measured, versions, the
            command that does it again; its report has the SHA-256 of the file.
        table: all files that were tried, a row each: that of `benchmark`, with `level`,
            `density`, `validation_accuracy`, which chooses, `accuracy` on the test
            data, and whether the row is `pareto` and `chosen`.
        failed: what could not be made, and why.
    """

    file: Path
    card: Path
    table: "pd.DataFrame"
    failed: dict[str, str]
    objective: Objective

    def __str__(self) -> str:
        best = self.table[self.table["pareto"]]
        left = len(self.table) - len(best)
        chosen = self.table.loc[self.table["chosen"], "file"].iloc[0]
        return "\n".join(
            [
                as_text(best, self.objective),
                f"{left} other files are beaten in latency, size, download and "
                f"{self.objective.words} alike",
                *(f"not made: {name}: {why}" for name, why in self.failed.items()),
                f"{self.file}: {chosen}; its card: {self.card}",
            ]
        )


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
    """Writes the best file of a run, of all that are worth a try.

    The dense network, the run's best ticket (`Run.best`, with its own margin and
    with this one) and its most accurate ticket are exported in each way that suits the
    target, as they are and compacted. Every file is run, compared with its Keras model,
    and measured. Validation data choose; test data are reported. Tickets are compared
    by the search's objective, files by the same or by another of the model's metrics.

    Args:
        run: the directory of a search.
        target: `"mobile"`, .tflite files, or `"server"`, SavedModels.
        data: the run's data set: a name for `kl.data.load`; an .npz file of any arrays,
            with `x_train`, `y_train` and the same for `validation` and `test`; or
            `Splits`, of dictionaries of arrays by name for a model of several inputs or
            outputs. By default what `keras-lottery find` noted in the run.
        prefer: which of the files that are accurate enough is written: the one of
            least `"latency"`, of least `"size"`, or of the least `"download"`: bytes
            after gzip.
        margin: how much worse than the best of all files on the validation data a file
            is good enough, in the objective's unit; and a ticket worse than the dense
            network, if files are compared by the search's objective. By default 0.005
            of an accuracy, which is half a percentage point, and of another metric a
            hundredth of what the dense network has.
        objective: what files are compared by: one of the model's metrics, named as in
            Keras's logs, such as `"val_auc"`. By default the search's.
        directory: where the file goes: `<run's name>/mobile.tflite`, or `/server`, with
            a card of the same name, ending in `.json`.
        threads, seconds: same as `benchmark`.
        say: takes a line about each file that is tried.

    Raises:
        FileNotFoundError: if there is no run, or no such data.
        ValueError: if an argument is out of range, the run has no trained ticket, its
            data are not known, or the backend is not TensorFlow.
        ExportError: if no file works.
    """
    checks.existing("run", run)
    if data is not None:
        form = "the name of a data set, an .npz file or Splits"
        checks.instance("data", data, str | datasets.Splits, form)
        if isinstance(data, str):
            checks.text("data", data)
    checks.choice("target", target, list(WAYS))
    checks.choice("prefer", prefer, list(PREFER))
    if margin is not None:
        checks.number("margin", margin, 0)
    asked = None if objective is None else named(objective)
    checks.directory("directory", directory)
    check_timing(threads, seconds)
    checks.function("say", say)
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "deploy needs the TensorFlow backend, which runs of every backend can be "
            f"read on. Received: KERAS_BACKEND={backend}. Start the process with "
            "KERAS_BACKEND=tensorflow."
        )
    search = Run.load(run)
    best, results = search.best(), search.results()
    source, splits = _data(search, data)
    dense = median_replicate(results, 0, search.objective)
    model = _trained(search, 0, dense).trained_model()
    validation, test = (
        _quality(model, part, asked or search.objective)
        for part in (splits.validation, splits.test)
    )
    objective = validation.objective
    if margin is None:
        margin = default_margin(objective, validation.value)
    same = objective.name == search.objective.name
    found = (best, search.best(margin)) if same else (best,)
    tickets = tickets_to_try(results, found, search.objective)
    file = Path(directory, search.name, f"{target}{ENDINGS[target]}")
    checks.directory("directory", file.parent)
    if target == "server":
        saved_model_path(file)
    else:
        checks.path("directory", file)
    card = checks.path("directory", file.with_name(f"{target}.json"))
    with tempfile.TemporaryDirectory() as folder:
        examples = splits.x_train
        tried, failed = _try(
            search, tickets, target, examples, validation, threads, folder, say
        )
        say(f"measuring {len(tried)} files")
        table = _measured(tried, test, threads, seconds)
        table["pareto"] = pareto(table, objective)
        row = choose(table, prefer, margin, objective)
        table["chosen"] = table.index == row
        with staged(file) as draft:
            copy = shutil.copytree if target == "server" else shutil.copy2
            copy(tried[row]["report"].path, draft)
            # An older card does not tell of this file.
            card.unlink(missing_ok=True)
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
        "file": file.name,
        "made": {
            "run": str(run),
            "level": chosen["level"],
            "replicate": chosen["replicate"],
            "density": chosen["density"],
            "steps": list(tried[row]["made"]),
        },
        "best_ticket": str(best),
        "rule": f"least {prefer} within {objective.amount(margin)} of the best "
        f"validation {objective.words}",
        "measured": chosen,
        "report": tried[row]["report"].to_dict()
        | {"path": str(file), "sha256": digests_of(file)},
        "data": source,
        "threads": threads,
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": versions() | {"ai-edge-litert": version("ai-edge-litert")},
        "command": shlex.join(command),
        "tried": as_records(table),
        "failed": failed,
    }
    write_sealed(card, note)
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
    """Writes what each ticket can become: files that work, and why others do not."""
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
        for each in candidates(name, model, target, examples, failed):
            say(f"{each.name}: {', '.join(each.made)}")
            try:
                report = each.write(Path(folder), ENDINGS[target])
                worth = quality.measure(report.path, threads=threads)
            except ExportError as error:
                failed[each.name] = str(error)
                continue
            made = {"made": each.made, "report": report}
            metric = f"validation_{quality.objective.metric}"
            tried.append({**row, **made, metric: worth})
    failed = {name: _in_short(reason) for name, reason in failed.items()}
    if not tried:
        raise ExportError(f"No file of '{run.directory}' works: {failed}")
    return tried, failed


def _measured(
    tried: list[dict[str, Any]],
    test: Quality,
    threads: int,
    seconds: float,
) -> "pd.DataFrame":
    files = [each["report"].path for each in tried]
    table = measured(files, test, threads=threads, seconds=seconds)
    table["file"] = [file.name for file in files]
    metric = f"validation_{test.objective.metric}"
    for column in ("level", "replicate", "density", metric):
        table[column] = [each[column] for each in tried]
    return table


def _quality(
    model: keras.Model, data: tuple[Any, Any], objective: Objective
) -> Quality:
    """What files are compared by; an uncompiled model's by their classes."""
    if not model.compiled and objective.metric == ACCURACY.metric:
        return by_classes(data)
    return by_model(data, keras_checks.compiled("model", model), objective)


def _trained(run: Run, level: int, replicate: int) -> Ticket:
    """A ticket to export: where its training started from is not needed."""
    return Ticket(
        run.masks(level, replicate),
        run.initial(replicate),
        trained=run.trained(level, replicate),
        architecture=run.settings["architecture"],
    )


def _data(run: Run, given: str | datasets.Splits | None) -> tuple[str, datasets.Splits]:
    """The data's name, and the data, which are to be those of the run."""
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


def _in_short(reason: str, most: int = 300) -> str:
    """Converters say a lot."""
    reason = " ".join(reason.split())
    return reason if len(reason) <= most else f"{reason[:most]} ..."
