"""Writes and measures candidate files, and puts the chosen one in place with a card."""

import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery import checks
from keras_lottery.engines.objective import ACCURACY, Objective
from keras_lottery.files import write_sealed
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.search.settings import versions
from keras_lottery.ship.deploy.candidates import WAYS, Candidate
from keras_lottery.ship.deploy.files import measured
from keras_lottery.ship.deploy.quality import Quality, by_classes, by_model
from keras_lottery.ship.deploy.show import as_text
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.files import digests_of, saved_model_path, staged
from keras_lottery.ship.export.other_runtimes import (
    NEEDED,
    check_installed,
    openvino_path,
)

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = {
    "mobile": ".tflite",
    "server": "",
    "microcontroller": ".tflite",
    "onnx": ".onnx",
    "openvino": "",
}
FOLDERS = {"server": saved_model_path, "openvino": openvino_path}
"""Checks the place where a target's directory is to be written."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The files that were tried and the one that was chosen; `str()` is a table.

    Attributes:
        file: the chosen file, or the directory of a SavedModel or for OpenVINO.
        card: a JSON file beside it, which says how the file was made, what was
            measured, with which versions, and which command repeats this; its report
            has the SHA-256 of the file.
        table: a row for each file that was tried, with the columns of `benchmark`;
            `validation_accuracy`, by which the file is chosen; `accuracy` on the test
            data (both only if there are data); whether the file is `pareto` and
            `chosen`; and for the tickets of a run, `level` and `density`.
        failed: the files that could not be made, with the reasons.
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
        compared = "latency, size and download"
        if self.objective.metric in self.table:
            compared = f"latency, size, download and {self.objective.words}"
        return "\n".join(
            [
                as_text(best, self.objective),
                f"{left} other files are beaten in {compared} alike",
                *(f"not made: {name}: {why}" for name, why in self.failed.items()),
                f"{self.file}: {chosen}; its card: {self.card}",
            ]
        )


def check_target(target: str) -> None:
    """Raises unless a target is known and its runtime installed."""
    checks.choice("target", target, list(WAYS))
    if target in NEEDED:
        check_installed(target, f"target={target!r}")


def check_backend(name: str, reads: str = "") -> None:
    """Raises ValueError unless the backend is TensorFlow, which writes the files."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"{name} needs the TensorFlow backend{reads}. Received: "
            f"KERAS_BACKEND={backend}. Start the process with KERAS_BACKEND=tensorflow."
        )


def places(folder: Path, target: str) -> tuple[Path, Path]:
    """The paths of the file and its card.

    Raises:
        ValueError: if something else exists there.
    """
    file = folder / f"{target}{ENDINGS[target]}"
    checks.directory("directory", folder)
    if target in FOLDERS:
        FOLDERS[target](file)
    else:
        checks.path("directory", file)
    return file, checks.path("directory", file.with_name(f"{target}.json"))


def quality_of(
    model: keras.Model, data: tuple[Any, Any], objective: Objective | str | None
) -> Quality:
    """The quality by which files are compared; without a compiled model, accuracy."""
    if not model.compiled and getattr(objective, "metric", None) == ACCURACY.metric:
        return by_classes(data)
    return by_model(data, keras_checks.compiled("model", model), objective)


def tried_files(
    candidates: Iterator[Candidate],
    folder: Path,
    target: str,
    quality: Quality | None,
    threads: int,
    failed: dict[str, str],
    say: Callable[[str], object],
) -> list[dict[str, Any]]:
    """Writes files and measures their quality on the validation data.

    Args:
        candidates: the files to write.
        folder: the directory to write to.
        target: a key of `ENDINGS`.
        quality: measures files on the validation data, if there are any.
        threads: the number of threads that a file may use.
        failed: a dictionary that receives the reasons why files could not be made.
        say: called with a line about each file.
    """
    tried: list[dict[str, Any]] = []
    for each in candidates:
        say(f"{each.name}: {', '.join(each.made)}")
        try:
            report = each.write(folder, ENDINGS[target])
            row: dict[str, Any] = {"made": each.made, "report": report}
            if quality is not None:
                metric = f"validation_{quality.objective.metric}"
                row[metric] = quality.measure(report.path, threads=threads)
        except ExportError as error:
            failed[each.name] = in_short(str(error))
            continue
        tried.append(row)
    return tried


def table_of(
    tried: Sequence[dict[str, Any]],
    columns: Sequence[str],
    quality: Quality | None,
    threads: int,
    seconds: float,
) -> "pd.DataFrame":
    """Measures the files that were tried, and adds the columns that are known."""
    files = [each["report"].path for each in tried]
    table = measured(files, quality, threads=threads, seconds=seconds)
    table["file"] = [file.name for file in files]
    for column in columns:
        table[column] = [each[column] for each in tried]
    return table


def hand_over(
    tried: dict[str, Any],
    row: dict[str, Any],
    file: Path,
    card: Path,
    note: dict[str, Any],
) -> None:
    """Puts the chosen file in place, with a card that says how it was made."""
    source = tried["report"].path
    with staged(file) as draft:
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, draft)
        # An older card does not describe this file.
        card.unlink(missing_ok=True)
    report = tried["report"].to_dict()
    own = {"path": str(file), "sha256": digests_of(file)}
    packages = ("ai-edge-litert", *NEEDED.get(report["format"], ()))
    known = {
        "measured": row,
        "report": report | own,
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": versions() | {name: version(name) for name in packages},
    }
    write_sealed(card, {"file": file.name, **note, **known})


def in_short(reason: str, most: int = 300) -> str:
    """Shortens the long messages of converters."""
    reason = " ".join(reason.split())
    return reason if len(reason) <= most else f"{reason[:most]} ..."
