"""Measures the size, latency, memory and quality of exported files, side by side."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery import checks
from keras_lottery.engines.objective import Objective, named
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.ship.deploy import measure
from keras_lottery.ship.deploy.quality import Quality, by_classes, by_model, by_name
from keras_lottery.ship.export.files import check_unchanged, gzip_size_of, size_of
from keras_lottery.ship.export.other_runtimes import NEEDED, check_installed

if TYPE_CHECKING:
    import pandas as pd

MOST_ROUNDS = 10_000
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def benchmark(
    files: Paths,
    data: tuple[Any, Any] | None = None,
    *,
    threads: int = 1,
    xnnpack: bool = True,
    rounds: int = 10,
    seconds: float = 1.0,
    threshold: float | None = None,
    model: keras.Model | None = None,
    objective: str | Objective | None = None,
) -> "pd.DataFrame":
    """Measures exported files: bytes, latency, memory, accuracy.

    All files run on the CPU. The latency is the time of a call from Python with one row
    of random numbers; for a SavedModel, the call itself takes most of that time. All
    files are timed in a separate process, in rounds that go through all of them, so
    that other work on the machine affects them equally.

    Args:
        files: paths of .tflite and .onnx files and of directories of SavedModels and
            for OpenVINO, or one path.
        data: arrays (x, y) of inputs and class numbers, to measure accuracies on; or
            whatever the `objective` needs. Several inputs or outputs are dictionaries
            by name.
        threads: how many threads a file may use. Accuracies of .tflite files are
            measured with the same `threads` and `xnnpack`; for other files, their
            runtime chooses the threads.
        xnnpack: whether LiteRT uses XNNPACK, its fast kernels, as it does by default.
        rounds: the number of rounds.
        seconds: how long each file is timed, in all rounds together.
        threshold: for classifiers with one output, the output above which a row belongs
            to class 1, which is 0 for logits. By default it is 0.5, and outputs that
            are not probabilities are refused. It is not needed with a `model`.
        model: the compiled Keras model from which the files were made, to measure them
            by its metrics.
        objective: what to measure on the data instead of an accuracy: one of the
            `model`'s metrics, named as in Keras's logs, such as `"val_age_mae"`; or,
            without a model and for files with one output, a metric of Keras, such as
            `"val_mae"` or `"val_auc"`. With a model, the default is its accuracy, else
            its only metric, else its loss.

    Returns:
        A table with a row for each file: `file`; `format`, `"litert"`, `"saved_model"`,
        `"onnx"` or `"openvino"`; `bytes` and `gzip_bytes` on disk; `p50_us` and
        `p90_us`, the median and the ninth decile of the latency in microseconds;
        `spread`, the difference between the highest and the lowest median of a round,
        as a share of `p50_us`; `calls`, the number of calls that were timed; `memory`,
        the most bytes that loading and running the file in its own process adds to the
        bare runtime (including the runtime's code that is first read then; NaN if the
        system does not report it); `operators`, those of a .tflite file that ran, with
        those of XNNPACK in brackets; and, if data are given, `accuracy`, or the
        metric's name without `"val_"`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if no file is given, one is of another kind, cannot be run or
            returns NaN, or an argument is out of range.
        ImportError: if the runtime of an .onnx file or of OpenVINO is not installed.
        CorruptedFileError: if one is not the file that a report beside it describes,
            see `kl.export.check_file`.

    Example:

    >>> import tempfile
    >>> import keras_lottery as kl
    >>> model = kl.models.lenet_300_100(seed=0)
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = kl.export.to_litert(model, f"{folder.name}/lenet.tflite")
    /...lenet.tflite (litert)
    ...
    >>> table = benchmark([report.path], rounds=2, seconds=0.1)
    >>> int(table["bytes"][0]) == report.bytes, bool(table["p50_us"][0] > 0)
    (True, True)
    >>> table["operators"][0]
    'SHAPE, STRIDED_SLICE, PACK, RESHAPE, XNNPACK(3 FULLY_CONNECTED)'
    """
    check_files(files)  # This comes before anything runs on the data.
    return measured(
        files,
        quality_by(data, threshold, model, objective),
        threads=threads,
        xnnpack=xnnpack,
        rounds=rounds,
        seconds=seconds,
    )


def quality_by(
    data: tuple[Any, Any] | None,
    threshold: float | None = None,
    model: keras.Model | None = None,
    objective: str | Objective | None = None,
) -> Quality | None:
    """The quality by which files are compared; arguments as in `benchmark`."""
    if threshold is not None:
        checks.number("threshold", threshold)
    if model is not None:
        keras_checks.compiled("model", model)
    chosen = None if objective is None else named(objective)
    if data is None:
        for name, value in (("model", model), ("objective", objective)):
            if value is not None:
                remedy = f"Pass the `data` to measure on, or leave `{name}` out."
                checks.refuse(name, "None without `data`", value, remedy)
        return None
    if model is not None:
        return by_model(data, model, chosen)
    if chosen is None or chosen.metric in ("accuracy", "acc"):
        return by_classes(data, threshold)
    return by_name(data, chosen)


def measured(
    files: Paths,
    quality: Quality | None = None,
    *,
    threads: int = 1,
    xnnpack: bool = True,
    rounds: int = 10,
    seconds: float = 1.0,
) -> "pd.DataFrame":
    """Same as `benchmark`, for files that are compared by `quality`."""
    import pandas as pd

    paths = check_files(files)
    check_timing(threads, seconds)
    checks.flag("xnnpack", xnnpack)
    checks.count("rounds", rounds, 1, MOST_ROUNDS)
    request = {
        "threads": threads,
        "xnnpack": xnnpack,
        "rounds": rounds,
        "seconds": seconds,
        "shape": quality and quality.row_shape,
    }
    names = [str(path.resolve()) for path in paths]
    # This comes first, because it refuses files that cannot be run.
    memories = [
        _ask({**request, "files": [name], "memory": True}, name) for name in names
    ]
    latencies = _ask({**request, "files": names, "memory": False}, ", ".join(names))
    rows = []
    for path, latency, memory in zip(paths, latencies, memories, strict=True):
        row = {
            "file": str(path),
            "format": measure.format_of(path),
            "bytes": size_of(path),
            "gzip_bytes": gzip_size_of(path),
            **latency,
            "memory": float("nan") if memory is None else memory,
        }
        if quality is not None:
            metric = quality.objective.metric
            row[metric] = quality.measure(path, threads=threads, xnnpack=xnnpack)
        rows.append(row)
    return pd.DataFrame(rows)


def check_timing(threads: int, seconds: float) -> None:
    """Raises ValueError for more threads than processors, or for no time at all."""
    checks.count("threads", threads, 1, max(os.cpu_count() or 1, 64))
    checks.number("seconds", seconds, most=86_400, above=0)


def check_files(files: Paths) -> list[Path]:
    """The paths of files that can be measured.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if no file is given, or one is of another kind.
        ImportError: if the runtime of one is not installed.
        CorruptedFileError: if one is not the file that a report beside it describes.
    """
    given = [files] if isinstance(files, str | os.PathLike) else files
    checks.sequence("files", given, "paths, at least one", 1)
    paths = [checks.existing("files", file) for file in given]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no file '{path}'. Received in `files`.")
        format = measure.format_of(path)
        if format is None:
            raise ValueError(
                "Expected .tflite and .onnx files and directories of SavedModels and "
                f"for OpenVINO. Received: '{path}'. Write them with "
                "`keras_lottery.export`."
            )
        if format in NEEDED:
            check_installed(format, f"The file '{path}'", run=True)
        check_unchanged(path)
    return paths


def _ask(request: dict[str, Any], files: str) -> Any:
    """Runs `measure.py` in a process of its own, and returns its answer."""
    run = subprocess.run(
        # With -P, the script's own folder is not searched for imports.
        [sys.executable, "-P", measure.__file__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(
            f"Expected files that can be run. Received: {files}, whose run ended with "
            f"status {run.returncode}: {reason}"
        )
    return json.loads(run.stdout.splitlines()[-1])
