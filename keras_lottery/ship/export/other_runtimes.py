"""Export to ONNX and OpenVINO, checked in their runtimes."""

import importlib.util
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery.checks import directory, refuse
from keras_lottery.keras_bridge.layers.convert import check_layer_names
from keras_lottery.ship.export.data import checks_for
from keras_lottery.ship.export.deliver import deliver
from keras_lottery.ship.export.files import file_path
from keras_lottery.ship.export.in_tensorflow import in_tensorflow, on_tensorflow
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.saved_model import write_saved_model
from keras_lottery.ship.export.signature import (
    Arrays,
    Run,
    Shapes,
    input_signature,
    of_file,
    output_names,
    structure,
)
from keras_lottery.ship.export.source import (
    check_dense,
    keras_model,
    plain_copy,
    precision,
)

NEEDED = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",)}
"""The packages that write a format, and last the one that runs it."""

ONNX_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
"""The types of ONNX Runtime that NumPy names otherwise."""


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
    check_installed("onnx", "`to_onnx`")
    how = (ticket_or_model, test_data, dense, _write_onnx, open_onnx)
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
    check_installed("openvino", "`to_openvino`")
    how = (ticket_or_model, test_data, dense, _write_openvino, open_openvino)
    return _export(to_openvino, "openvino", folder, *how)


def _export(
    function: Callable[..., ExportReport],
    format: str,
    path: Path,
    ticket_or_model: Any,
    test_data: tuple[Any, Any] | None,
    dense: keras.Model | None,
    write: Callable[[keras.Model, Path], None],
    read: Callable[[Path], tuple[Shapes, Run]],
) -> ExportReport:
    given = keras_model(ticket_or_model)
    check_layer_names(given)
    check_dense(dense)
    if not on_tensorflow(function.__name__):
        arguments = {"ticket_or_model": given, "test_data": test_data, "dense": dense}
        return in_tensorflow(function, path, arguments)
    return deliver(
        given,
        plain_copy(given),
        path,
        format,
        write=write,
        read=lambda file: read(file)[1],
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


def check_installed(format: str, asked: str, run: bool = False) -> None:
    """Raises ImportError unless the packages that a format needs are installed.

    Args:
        format: a key of `NEEDED`.
        asked: what needs them, for the message, such as an argument and its value.
        run: whether a file is only run, for which the last of the packages suffices.
    """
    modules = NEEDED[format][-1:] if run else NEEDED[format]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{asked} needs {', '.join(modules)}. Not installed: {', '.join(missing)}. "
            f"Call `pip install keras_lottery[{format}]`."
        )


def _write_onnx(model: keras.Model, path: Path) -> None:
    _teach_erfc()
    # Only outputs in a dictionary keep their names.
    outputs = dict(zip(output_names(model), model.outputs, strict=True))
    named = keras.Model(structure(model, "input"), outputs)
    # Without a signature, Keras refuses a model that has not been called yet.
    signature = input_signature(model)
    how = {"format": "onnx", "verbose": False, "input_signature": signature}
    named.export(str(path), **how)


@cache
def _teach_erfc() -> None:
    """Teaches tf2onnx TensorFlow's Erfc, of which Keras makes the exact gelu."""
    from tf2onnx import utils
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **_: Any) -> None:
            node.type = "Erf"
            dtype = utils.map_onnx_to_numpy_type(graph.get_dtype(node.output[0]))
            one = graph.make_const(utils.make_name("one"), np.array(1, dtype))
            minus = graph.insert_new_node_on_output("Neg", node.output[0])
            ends = [minus.output[0], one.output[0]]
            graph.insert_new_node_on_output("Add", ends[0], inputs=ends)


def _write_openvino(model: keras.Model, path: Path) -> None:
    import openvino

    # Keras's own exporter (3.15) hands over a function in memory. Of that, OpenVINO
    # makes inputs of what the function captures, refuses recurrent layers, and the
    # inputs of a dictionary get each other's names.
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path(folder))
        net = openvino.convert_model(folder)
        openvino.save_model(net, path / "model.xml", compress_to_fp16=False)


def open_onnx(path: Path) -> tuple[Shapes, Run]:
    """Returns the shapes of an `.onnx` file's inputs, and a function that runs it."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [end.name for end in session.get_outputs()]
    shapes, types = {}, {}
    for end in session.get_inputs():
        shapes[end.name] = tuple(n if isinstance(n, int) else -1 for n in end.shape)
        types[end.name] = ONNX_TYPES.get(end.type, end.type[7:-1])

    def call(values: Arrays) -> Arrays:
        return dict(zip(names, session.run(None, values), strict=True))

    return shapes, of_file(call, shapes, types)


def open_openvino(path: Path) -> tuple[Shapes, Run]:
    """Returns the shapes of a directory's inputs, and a function that runs its net."""
    import openvino

    # Otherwise some CPUs would compute in bfloat16.
    how = {"INFERENCE_PRECISION_HINT": "f32"}
    net = openvino.Core().compile_model(str(path / "model.xml"), "CPU", how)
    shapes, types = {}, {}
    for end in net.inputs:
        shapes[end.any_name] = tuple(
            -1 if n.is_dynamic else n.get_length() for n in end.partial_shape
        )
        types[end.any_name] = end.element_type.to_dtype()

    def call(values: Arrays) -> Arrays:
        found = net(values)
        return {end.any_name: found[end] for end in net.outputs}

    return shapes, of_file(call, shapes, types)
