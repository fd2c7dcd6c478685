"""Export to ONNX and OpenVINO, by Keras's own exporters, checked in their runtimes."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_lottery.checks import directory, refuse
from keras_lottery.keras_bridge.layers.convert import check_layer_names
from keras_lottery.keras_bridge.layers.recurrent import batch_size_of
from keras_lottery.ship.export.data import checks_for
from keras_lottery.ship.export.deliver import deliver
from keras_lottery.ship.export.files import file_path
from keras_lottery.ship.export.in_tensorflow import in_tensorflow, on_tensorflow
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.signature import (
    Arrays,
    Run,
    in_batches,
    input_names,
    input_signature,
    output_names,
)
from keras_lottery.ship.export.source import (
    check_dense,
    keras_model,
    plain_copy,
    precision,
)

BATCH = 256

NEEDED = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",)}
"""The packages that write and run a format."""


def to_onnx(
    ticket_or_model: Any,
    path: str | os.PathLike[str],
    test_data: tuple[Any, Any] | None = None,
    dense: keras.Model | None = None,
) -> ExportReport:
    """Writes an `.onnx` file, and runs it in ONNX Runtime before putting it in place.

    Runtimes for ONNX do not compute with sparse weights: zeros only shrink the download
    (gzip), while removed channels (`compact`) shrink everything.

    Args:
        ticket_or_model: a ticket (its trained model is exported), or a masked or an
            ordinary Keras model.
        path: the file to write, ending in `.onnx`.
        test_data, dense: same as in `to_litert`.

    Returns:
        The report, which is also printed.

    Raises:
        ValueError: if an argument is invalid.
        ExportError: if the file fails its check; nothing is written then.
        ImportError: if onnx, tf2onnx or onnxruntime are not installed.
        RuntimeError: if TensorFlow is not installed. On another backend of Keras, it
            writes the file in a process of its own.
    """
    file = file_path(path, ".onnx")
    check_installed("onnx")
    how = (ticket_or_model, test_data, dense, _write_onnx, _read_onnx)
    return _export(to_onnx, "onnx", file, *how)


def to_openvino(
    ticket_or_model: Any,
    path: str | os.PathLike[str],
    test_data: tuple[Any, Any] | None = None,
    dense: keras.Model | None = None,
) -> ExportReport:
    """Writes a directory for OpenVINO, `model.xml` and `model.bin`, and runs it there.

    Weights are float32, and zeros only shrink the download (gzip), as with `to_onnx`.

    Args:
        ticket_or_model: same as in `to_onnx`.
        path: the directory to write: a new one, an empty one, or an older export.
        test_data, dense: same as in `to_litert`.

    Returns:
        The report, which is also printed.

    Raises:
        ValueError: if an argument is invalid.
        ExportError: if the file fails its check; nothing is written then.
        ImportError: if openvino is not installed.
        RuntimeError: if TensorFlow is not installed. On another backend of Keras, it
            writes the file in a process of its own.
    """
    folder = openvino_path(path)
    check_installed("openvino")
    how = (ticket_or_model, test_data, dense)
    return _export(
        to_openvino, "openvino", folder, *how, _write_openvino, _read_openvino
    )


def _export(
    function: Callable[..., ExportReport],
    format: str,
    path: Path,
    ticket_or_model: Any,
    test_data: tuple[Any, Any] | None,
    dense: keras.Model | None,
    write: Callable[[keras.Model, Path], None],
    read: Callable[[keras.Model, Path], Run],
) -> ExportReport:
    given = keras_model(ticket_or_model)
    check_layer_names(given)
    check_dense(dense)
    if not on_tensorflow(function.__name__):
        arguments = {"ticket_or_model": given, "test_data": test_data, "dense": dense}
        return in_tensorflow(function, path, arguments)
    plain = plain_copy(given)
    return deliver(
        given,
        plain,
        path,
        format,
        write=write,
        read=lambda file: read(plain, file),
        checks=checks_for(given, test_data),
        precision=precision(given),
        dense=dense,
    )


def openvino_path(path: str | os.PathLike[str]) -> Path:
    """Returns the directory to write for OpenVINO, or raises ValueError.

    A directory that holds something else is never replaced.
    """
    folder = directory("path", path)
    is_older = (folder / "model.xml").exists()
    if folder.exists() and not is_older and any(folder.iterdir()):
        form = "a directory for OpenVINO: a new one, an empty one, or an older one"
        refuse("path", form, os.fspath(path))
    return folder


def check_installed(format: str) -> None:
    """Raises ImportError unless the packages that a format needs are installed."""
    modules = NEEDED[format]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"`to_{format}` writes by {', '.join(modules)} and runs what it writes. "
            f"Not installed: {', '.join(missing)}. Call `pip install "
            f"keras_lottery[{format}]`."
        )


def _write_onnx(model: keras.Model, path: Path) -> None:
    # Without a signature, Keras refuses a model that has not been called yet.
    signature = input_signature(model)
    how = {"format": "onnx", "verbose": False, "input_signature": signature}
    model.export(str(path), **how)


def _write_openvino(model: keras.Model, path: Path) -> None:
    path.mkdir()
    model.export(str(path / "model.xml"), format="openvino", verbose=False)


def _read_onnx(model: keras.Model, path: Path) -> Run:
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ends = [end.name for end in session.get_inputs()]

    def run(values: dict[str, Any]) -> list[Any]:
        return list(session.run(None, values))

    return _by_name(model, ends, run)


def _read_openvino(model: keras.Model, path: Path) -> Run:
    import openvino

    core = openvino.Core()
    # Otherwise some CPUs would compute in bfloat16.
    how = {"INFERENCE_PRECISION_HINT": "f32"}
    net = core.compile_model(str(path / "model.xml"), "CPU", how)
    ends = [end.any_name for end in net.inputs]

    def run(values: dict[str, Any]) -> list[Any]:
        found = net(values)
        return [found[end] for end in net.outputs]

    return _by_name(model, ends, run)


def _by_name(
    model: keras.Model, ends: list[str], run: Callable[[dict[str, Any]], list[Any]]
) -> Run:
    """Makes a `Run` by name of a function whose values are in the model's order."""
    names = dict(zip(input_names(model), ends, strict=True))

    def named(inputs: Arrays) -> Arrays:
        values = {names[name]: array for name, array in inputs.items()}
        return dict(zip(output_names(model), run(values), strict=True))

    return in_batches(named, BATCH, batch_size_of(model))
