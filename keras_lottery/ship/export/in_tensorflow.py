"""Exports that only TensorFlow can write, from models of other backends."""

import contextlib
import importlib.util
import io
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import loky

from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.source import keras_model

MODELS = ("ticket_or_model", "dense")
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


def on_tensorflow(function: str) -> bool:
    """Whether Keras works on TensorFlow; on another backend it must be installed.

    Raises:
        RuntimeError: if it is not.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return True
    if not has_tensorflow():
        raise RuntimeError(
            f"`{function}` writes by TensorFlow, which is not installed. Received: "
            f"backend='{backend}'. Call `pip install tensorflow`, or save the ticket, "
            "or the model with `to_keras`, and export it where TensorFlow is."
        )
    return False


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed, which is not imported to see it."""
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"] is not None
    return importlib.util.find_spec("tensorflow") is not None


def in_tensorflow(
    export: Callable[..., ExportReport], path: Path, arguments: Mapping[str, Any]
) -> ExportReport:
    """Exports in a process of its own, in which Keras works on TensorFlow.

    The models go there in `.keras` files. Classes and functions of the user that are
    registered with Keras go with them.

    Args:
        export: the function that exports.
        path: the file to write.
        arguments: its other arguments.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    models = {name: keras_model(given.pop(name)) for name in MODELS if name in given}
    given = keras.tree.map_structure(_leaving, given)
    work = cloudpickle.dumps((export, dict(keras.saving.get_custom_objects())))
    with tempfile.TemporaryDirectory(prefix="keras_lottery-") as folder:
        for name, model in models.items():
            model.save(Path(folder, f"{name}.keras"))
        pool = loky.ProcessPoolExecutor(1, env=ENVIRONMENT)
        try:
            report = pool.submit(_run, work, folder, path.absolute(), given).result()
        finally:
            pool.shutdown(kill_workers=True)
    print(report)
    return report


def _leaving(leaf: Any) -> Any:
    """Tensors as arrays, which other processes can read."""
    return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf


def _run(
    work: bytes, folder: str, path: Path, arguments: dict[str, Any]
) -> ExportReport:
    export, custom = cloudpickle.loads(work)
    files = Path(folder).glob("*.keras")
    models = {file.stem: keras.saving.load_model(file, custom) for file in files}
    with contextlib.redirect_stdout(io.StringIO()):
        return export(path=path, **models, **arguments)
