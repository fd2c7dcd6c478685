"""Runs exported files on data, to measure their quality."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.objective import ACCURACY, Objective, named, resolve
from keras_lottery.quiet import quiet
from keras_lottery.ship.deploy.measure import format_of, interpreter
from keras_lottery.ship.export.data import as_inputs
from keras_lottery.ship.export.errors import ExportError, in_short
from keras_lottery.ship.export.metrics import Metrics
from keras_lottery.ship.export.other_runtimes import open_onnx, open_openvino
from keras_lottery.ship.export.signature import (
    Arrays,
    Run,
    Shapes,
    in_batches,
    of_file,
    run_keras,
)
from keras_lottery.ship.export.source import keras_model


@dataclass(frozen=True)
class Quality:
    """The metric by which files are compared, and the data.

    Args:
        objective: the metric.
        inputs: an array, or arrays by the names of the files' inputs.
        measure: returns the metric of a file for `(file, threads=…, xnnpack=…)`.
        value: the metric of the Keras model, if there is one.
    """

    objective: Objective
    inputs: Any
    measure: Callable[..., float]
    value: float | None = None

    @property
    def row_shape(self) -> list[int] | None:
        """The shape of a row of the inputs, if they are one array."""
        return None if isinstance(self.inputs, Mapping) else [*self.inputs.shape[1:]]


def by_classes(data: Any, threshold: float | None = None) -> Quality:
    """Compares files of classifiers by accuracy, without a Keras model.

    Args:
        data: the pair (x, y) of inputs and class numbers.
        threshold: the threshold of classifiers with one output, same as in
            `benchmark`.

    Raises:
        ValueError: if the data are anything else.
    """
    x, y = check_classes(data)
    return Quality(ACCURACY, x, partial(accuracy_of, x=x, y=y, threshold=threshold))


def by_name(data: Any, objective: str | Objective) -> Quality:
    """Compares files with one output by a metric of Keras, without a Keras model.

    Args:
        data: the pair (x, y); x may be a dictionary of arrays by input name.
        objective: the metric, such as `"val_mae"`.

    Raises:
        ValueError: if Keras has no such metric, or the data are no pair.
    """
    objective = named(objective)
    x, y = _pair(data)
    x = {k: np.asarray(v) for k, v in x.items()} if isinstance(x, Mapping) else x
    x, y = x if isinstance(x, Mapping) else np.asarray(x), np.asarray(y)
    try:
        metric = keras.metrics.get(objective.metric)
    except ValueError as error:
        raise ValueError(
            "Expected `objective` to be a metric of Keras's, such as 'val_mae' or "
            f"'val_auc'. Received: objective={objective.name!r}. Pass the compiled "
            "`model` that the files were made of, to measure by its own metrics."
        ) from error
    if not isinstance(metric, keras.Metric):
        metric = keras.metrics.MeanMetricWrapper(metric)

    def measure(file: Path, threads: int = 1, xnnpack: bool = True) -> float:
        outputs = outputs_of(file, x, threads, xnnpack)
        if len(outputs) > 1:
            raise ValueError(
                f"Expected a file of one output, to measure its {objective.words}. "
                f"Received: '{file}' with {sorted(outputs)}. Pass the compiled `model` "
                "that it was made of."
            )
        metric.reset_state()
        with _said(objective, y):
            metric.update_state(y, *outputs.values())
        return float(metric.result())

    return Quality(objective, x, measure)


def by_model(
    data: Any, model: keras.Model, objective: str | Objective | None = None
) -> Quality:
    """Compares files that were made from a model by one of its compiled metrics.

    Args:
        data: the pair (x, y), same as in `model.evaluate`.
        model: the compiled model, which is run on the data.
        objective: one of its metrics, named as in Keras's logs; by default its
            accuracy, else its only metric, else its loss without the penalties of
            regularisers.

    Raises:
        ValueError: if the model has no such metric, or the data do not fit it.
    """
    x, y = _pair(data)
    graph = keras_model(model)  # A subclassed model becomes a Functional one.
    inputs, metrics = as_inputs(graph, x, "data"), Metrics(graph, y, model)
    with _said(objective, y):
        logs = metrics.all(run_keras(graph)(inputs))
    if objective is None:
        others = [name for name in logs if not name.endswith("loss")]
        if len(others) < 2:
            objective = f"val_{others[0] if others else 'loss'}"
    chosen = resolve(objective, metrics.model, logs)

    def measure(file: Path, threads: int = 1, xnnpack: bool = True) -> float:
        outputs = outputs_of(file, inputs, threads, xnnpack)
        if len(outputs) == len(metrics.names) == 1:  # Then its name does not matter.
            outputs = dict(zip(metrics.names, outputs.values(), strict=True))
        if outputs.keys() != set(metrics.names):
            raise ValueError(
                f"Expected files with the outputs of the model '{model.name}', "
                f"{sorted(metrics.names)}. Received: '{file}' with {sorted(outputs)}. "
                "Pass the `model` that it was made of."
            )
        return float(metrics.all(outputs)[chosen.metric])

    return Quality(chosen, inputs, measure, float(logs[chosen.metric]))


def _pair(data: Any) -> tuple[Any, Any]:
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    form = "a pair (x, y) of inputs and targets"
    raise ValueError(f"Expected `data` to be {form}. Received: {type(data).__name__}.")


@contextmanager
def _said(objective: str | Objective | None, y: Any) -> Iterator[None]:
    """Turns Keras's error for targets that do not fit into one about the data."""
    try:
        yield
    except Exception as error:
        shapes = [np.shape(part) for part in keras.tree.flatten(y)]
        raise ValueError(
            "Expected `data` (x, y) of a y that the metrics take. Received: y of "
            f"shapes {shapes}, objective={objective!r}. Keras says: {in_short(error)}"
        ) from error


def check_classes(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pair (x, y) as arrays, or raises ValueError."""
    if isinstance(data, tuple | list) and len(data) == 2:
        x, y = (np.asarray(array) for array in data)
        if x.ndim > 1 and y.shape == (len(x),) and y.dtype.kind in "iu" and len(x):
            return x, y
        received = f"shapes {x.shape} and {y.shape}, classes of type {y.dtype}"
    else:
        received = type(data).__name__
    raise ValueError(
        "Expected `data` to be a pair of arrays (x, y): inputs, and their classes as "
        f"whole numbers of shape (rows,). Received: {received}. What else to measure, "
        "say by `objective`, such as 'val_mae', or by the compiled `model`."
    )


def accuracy_of(
    file: Path,
    x: np.ndarray,
    y: np.ndarray,
    threads: int = 1,
    xnnpack: bool = True,
    threshold: float | None = None,
) -> float:
    """The share of rows whose largest output is that of the right class.

    Args:
        file: a file of any format of `benchmark` with one input, and with an output
            for each class, or one output for two classes.
        x: inputs.
        y: class numbers of shape (rows,).
        threads, xnnpack: how LiteRT runs a .tflite file, same as in `benchmark`.
        threshold: the threshold of classifiers with one output, same as in `benchmark`.

    Raises:
        ValueError: if the file has other inputs or outputs.
        ExportError: if it returns NaN.
    """
    found = outputs_of(file, x, threads, xnnpack)
    if len(found) > 1:
        raise ValueError(
            "Expected a file of one output, to measure an accuracy. Received: "
            f"'{file}' with {len(found)} outputs, {sorted(found)}. Leave `data` out, "
            "or pass the compiled `model` that it was made of."
        )
    (outputs,) = found.values()
    if outputs.ndim != 2 or max(outputs.shape[1], 2) <= y.max():
        raise ValueError(
            f"Expected an output for each class (0 to {y.max()}), or one for the "
            "classes 0 and 1, to measure an accuracy. Received: the file "
            f"'{file}' with outputs of shape {outputs.shape[1:]}. Leave `data` out."
        )
    if outputs.shape[1] > 1:
        return float(np.mean(outputs.argmax(axis=-1) == y))
    if threshold is None and not (0 <= outputs.min() <= outputs.max() <= 1):
        raise ValueError(
            "Expected the probability of class 1, from 0 to 1. Received: the file "
            f"'{file}' with outputs from {outputs.min():.3g} to {outputs.max():.3g}. "
            "Say where they decide: threshold=0 for logits."
        )
    chosen = outputs[:, 0] > (0.5 if threshold is None else threshold)
    return float(np.mean(chosen == y))


def outputs_of(file: Path, x: Any, threads: int = 1, xnnpack: bool = True) -> Arrays:
    """Runs a file on data, and returns its outputs by name.

    Args:
        file: a file of any format of `benchmark`.
        x: an array, for a file with one input, or arrays by the names of its inputs.
        threads, xnnpack: how LiteRT runs a .tflite file, same as in `benchmark`.

    Raises:
        ValueError: if the file has other inputs.
        ExportError: if it returns NaN.
    """
    with quiet():
        format = format_of(file)
        shapes, run = (
            OPEN[format](file) if format in OPEN else _litert(file, threads, xnnpack)
        )
    inputs = _inputs(file, x, shapes)
    outputs = run(inputs)
    for name, array in outputs.items():
        if array.dtype.kind != "f":
            continue
        # `argmax` takes NaN for the largest value: a row of NaN would be of class 0.
        if wrong := np.isnan(array).reshape(len(array), -1).any(axis=-1).sum():
            raise ExportError(
                f"Expected numbers from the file '{file}'. Received: NaN in {wrong:,} "
                f"of {len(array):,} rows of {name}. Look for NaN in the data and in "
                "the model's weights; if there is none, write the file in another way, "
                "such as `to_litert(model, path, sparse=False)`, which is float32."
            )
    return outputs


def _litert(file: Path, threads: int, xnnpack: bool) -> tuple[Shapes, Run]:
    model = interpreter(str(file), threads, xnnpack)
    inputs, outputs = _ends(model)
    shapes = {n: tuple(map(int, each["shape_signature"])) for n, each in inputs.items()}
    fixed = next((shape[0] for shape in shapes.values() if shape[:1] > (0,)), None)

    def call(rows: Arrays) -> Arrays:
        for name, array in rows.items():
            model.set_tensor(inputs[name]["index"], array)
        model.invoke()
        return {
            name: _as_floats(model.get_tensor(target["index"]), target)
            for name, target in outputs.items()
        }

    def run(x: Arrays) -> Arrays:
        for name, source in inputs.items():
            shape = (fixed or 1, *x[name].shape[1:])
            model.resize_tensor_input(source["index"], shape)
        model.allocate_tensors()
        given = {name: _as_integers(x[name], inputs[name]) for name in inputs}
        return in_batches(call, 1, fixed)(given)  # This runs row by row, as on a phone.

    return shapes, run


def _ends(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's inputs and outputs by name, from its signature if it has one."""
    if signatures := list(model.get_signature_list()):
        runner = model.get_signature_runner(signatures[0])
        return runner.get_input_details(), runner.get_output_details()
    details = model.get_input_details(), model.get_output_details()
    inputs, outputs = ({each["name"]: each for each in some} for some in details)
    return inputs, outputs


def _saved_model(file: Path) -> tuple[Shapes, Run]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(file))
    inputs = loaded.signatures["serving_default"].structured_input_signature[1]
    shapes = {
        name: tuple(-1 if size is None else size for size in spec.shape)
        for name, spec in inputs.items()
    }
    types = {name: spec.dtype.as_numpy_dtype for name, spec in inputs.items()}

    def call(rows: Arrays) -> Arrays:
        # `loaded` must be kept alive, or its signatures lose their variables.
        found = loaded.signatures["serving_default"](
            **{name: tf.constant(array) for name, array in rows.items()}
        )
        return {name: output.numpy() for name, output in found.items()}

    return shapes, of_file(call, shapes, types)


OPEN = {"saved_model": _saved_model, "onnx": open_onnx, "openvino": open_openvino}
"""How files of each format are opened, which choose their threads themselves."""


def _inputs(file: Path, x: Any, shapes: Shapes) -> Arrays:
    """An array for each of a file's inputs.

    If the file has one input, its name does not matter.
    """
    given = x if isinstance(x, Mapping) else {"x": x}
    if len(given) == len(shapes) == 1:
        given = dict(zip(shapes, given.values(), strict=True))
    if given.keys() != shapes.keys():
        raise ValueError(
            f"Expected arrays for the inputs {sorted(shapes)} of the file '{file}'. "
            f"Received: {sorted(given) if isinstance(x, Mapping) else 'one array'}. "
            "Pass x as a dictionary of arrays by name, or leave `data` out."
        )
    for name, shape in shapes.items():
        _check_shape(file, given[name], shape)
    return given


def _as_integers(x: np.ndarray, source: dict[str, Any]) -> np.ndarray:
    """Converts an array to the file's type; floats are quantised by its scale."""
    dtype = np.dtype(source["dtype"])
    scales = source["quantization_parameters"]["scales"]
    if dtype.kind in "iu" and len(scales):
        zero = source["quantization_parameters"]["zero_points"][0]
        ends = np.iinfo(dtype)
        x = np.clip(np.round(x / scales[0]) + zero, ends.min, ends.max)
    return x.astype(dtype)


def _as_floats(y: np.ndarray, target: dict[str, Any]) -> np.ndarray:
    """The floats that the integers of a file stand for."""
    quantization = target["quantization_parameters"]
    if y.dtype.kind in "iu" and len(quantization["scales"]):
        zero, scale = quantization["zero_points"][0], quantization["scales"][0]
        return (y.astype("float32") - zero) * scale
    return y


def _check_shape(file: Path, x: np.ndarray, shape: tuple[int, ...]) -> None:
    if x.ndim != len(shape) or any(
        wanted not in (-1, got)
        for wanted, got in zip(shape[1:], x.shape[1:], strict=True)
    ):
        raise ValueError(
            f"Expected data of shape (rows, {', '.join(map(str, shape[1:]))}), which "
            f"the file '{file}' takes. Received: data of shape {x.shape}."
        )
