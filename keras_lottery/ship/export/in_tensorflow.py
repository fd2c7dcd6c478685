"""Runs exports that need TensorFlow for models of other backends."""

import contextlib
import importlib.util
import inspect
import io
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import loky

from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.keras_bridge.layers.copying import own_objects
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.source import keras_model

MODELS = ("ticket_or_model", "dense")
# Files are checked on CPUs, and the accelerator may be in use.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
}


def on_tensorflow(function: str) -> bool:
    """Whether Keras runs on TensorFlow; if not, checks that TensorFlow is installed.

    Raises:
        RuntimeError: if it is not installed.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return True
    if not has_tensorflow():
        raise RuntimeError(
            f"`{function}` needs TensorFlow, which is not installed. Received: "
            f"backend='{backend}'. Call `pip install tensorflow`; or save the ticket, "
            "or the model with `to_keras`, and export it where TensorFlow is installed."
        )
    return False


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed; it is not imported to find out."""
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"] is not None
    return importlib.util.find_spec("tensorflow") is not None


def in_tensorflow(
    export: Callable[..., ExportReport], path: Path, arguments: Mapping[str, Any]
) -> ExportReport:
    """Exports in a process of its own, in which Keras runs on TensorFlow.

    The models are passed to it as `.keras` files, together with the user's classes and
    functions that are registered with Keras.

    Args:
        export: the function that exports.
        path: the file to write.
        arguments: the other arguments of the function.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    models = {name: keras_model(given.pop(name)) for name in MODELS if name in given}
    given = keras.tree.map_structure(_leaving, given)
    custom = dict(keras.saving.get_custom_objects())
    for model in models.values():
        custom |= {**own_objects(model), **_compiled_with(model)}
    work = cloudpickle.dumps((export, custom))
    with tempfile.TemporaryDirectory(prefix="keras_lottery-") as folder:
        for name, model in models.items():
            model.save(Path(folder, f"{name}.keras"))
        pool = loky.ProcessPoolExecutor(1, env=ENVIRONMENT)
        try:
            report = pool.submit(_run, work, folder, path.absolute(), given).result()
        except BrokenProcessPool as error:
            raise ExportError(
                f"Nothing was written to '{path}': the process of TensorFlow that was "
                "to write it died. Is there memory for it?"
            ) from error
        finally:
            pool.shutdown(kill_workers=True)
    report = replace(report, path=path)
    print(report)
    return report


def _compiled_with(model: keras.Model) -> dict[str, Any]:
    """The user's own losses and metrics by name, registered with Keras or not."""
    given = compile_arguments(model) if model.compiled else {}
    values = [given.get(name) for name in ("loss", "metrics", "weighted_metrics")]
    things = [
        value if inspect.isfunction(value) else type(value)
        for value in keras.tree.flatten(values)
    ]
    return {
        thing.__name__: thing
        for thing in things
        if thing.__module__.partition(".")[0] not in ("keras", "builtins")
    }


def _leaving(leaf: Any) -> Any:
    """Converts tensors to arrays, which other processes can read."""
    return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf


def _run(
    work: bytes, folder: str, path: Path, arguments: dict[str, Any]
) -> ExportReport:
    export, custom = cloudpickle.loads(work)
    files = Path(folder).glob("*.keras")
    try:
        models = {
            file.stem: keras.saving.load_model(file, custom, safe_mode=False)
            for file in files
        }
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"Nothing was written to '{path}': the model cannot be opened in a process "
            "of TensorFlow. Register its own classes and functions with "
            f"`@keras.saving.register_keras_serializable()`. Keras says: {error}"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        return export(path=path, **models, **arguments)
