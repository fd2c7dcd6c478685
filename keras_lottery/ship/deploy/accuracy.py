"""Runs exported files on data, to measure their accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_lottery.quiet import quiet
from keras_lottery.ship.deploy.measure import interpreter
from keras_lottery.ship.export.errors import ExportError

Rows = Callable[[np.ndarray], np.ndarray]
"""Computes outputs of shape (rows, classes) from inputs."""


def check_classes(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pair (x, y) as arrays, or ValueError."""
    if isinstance(data, tuple | list) and len(data) == 2:
        x, y = (np.asarray(array) for array in data)
        if x.ndim > 1 and y.shape == (len(x),) and y.dtype.kind in "iu" and len(x):
            return x, y
        received = f"shapes {x.shape} and {y.shape}, classes of type {y.dtype}"
    else:
        received = type(data).__name__
    raise ValueError(
        "Expected `data` to be a pair of arrays (x, y): inputs, and their classes as "
        f"whole numbers of shape (rows,). Received: {received}."
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
        file: a .tflite file or a SavedModel, of one input, and one output a class, or
            one for two classes.
        x: inputs.
        y: class numbers of shape (rows,).
        threads, xnnpack: how LiteRT runs a .tflite file, same as `benchmark`.
        threshold: where one output decides between two classes, same as `benchmark`.

    Raises:
        ValueError: if the file takes or returns anything else.
        ExportError: if it returns NaN.
    """
    with quiet():
        run = _saved_model(file) if file.is_dir() else _litert(file, threads, xnnpack)
    outputs = run(x)
    if outputs.ndim != 2 or max(outputs.shape[1], 2) <= y.max():
        raise ValueError(
            f"Expected an output for each class (0 to {y.max()}), or one for the "
            "classes 0 and 1, to measure an accuracy. Received: the file "
            f"'{file}' with outputs of shape {outputs.shape[1:]}. Leave `data` out."
        )
    # NaN counts as the largest of a row: all of NaN would pass for class 0.
    if wrong := np.count_nonzero(np.isnan(outputs).any(axis=-1)):
        raise ExportError(
            f"Expected numbers from the file '{file}'. Received: NaN in {wrong:,} of "
            f"{len(x):,} rows. Look for NaN in the data and in the model's weights; if "
            "there is none, write the file in another way, such as "
            "`to_litert(model, path, sparse=False)`, which is float32."
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


def _litert(file: Path, threads: int, xnnpack: bool) -> Rows:
    model = interpreter(str(file), threads, xnnpack)
    inputs, outputs = model.get_input_details(), model.get_output_details()
    _check_ends(file, len(inputs), len(outputs))
    (source,), (target,) = inputs, outputs

    def run(x: np.ndarray) -> np.ndarray:
        _check_shape(file, x, source["shape_signature"])
        model.resize_tensor_input(source["index"], (1, *x.shape[1:]))
        model.allocate_tensors()
        x = _as_integers(x, source)
        rows = []
        for i in range(len(x)):  # Row by row, as on a phone.
            model.set_tensor(source["index"], x[i : i + 1])
            model.invoke()
            rows.append(_as_floats(model.get_tensor(target["index"]), target))
        return np.concatenate(rows)

    return run


def _saved_model(file: Path) -> Rows:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(file))
    signature = loaded.signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    _check_ends(file, len(inputs), len(signature.structured_outputs))
    ((name, spec),) = inputs.items()

    def run(x: np.ndarray) -> np.ndarray:
        _check_shape(file, x, [size or -1 for size in spec.shape])
        x = x.astype(spec.dtype.as_numpy_dtype)
        size = spec.shape[0] or 256
        parts = []
        for i in range(0, len(x), size):
            # `loaded` has to live as long as its signatures: they lose their variables.
            ((_, output),) = loaded.signatures["serving_default"](
                **{name: tf.constant(x[i : i + size])}
            ).items()
            parts.append(output.numpy())
        return np.concatenate(parts)

    return run


def _as_integers(x: np.ndarray, source: dict[str, Any]) -> np.ndarray:
    """In the file's type; floats by its scale where it takes integers."""
    dtype = np.dtype(source["dtype"])
    scales = source["quantization_parameters"]["scales"]
    if dtype.kind in "iu" and len(scales):
        zero = source["quantization_parameters"]["zero_points"][0]
        ends = np.iinfo(dtype)
        x = np.clip(np.round(x / scales[0]) + zero, ends.min, ends.max)
    return x.astype(dtype)


def _as_floats(y: np.ndarray, target: dict[str, Any]) -> np.ndarray:
    """What the integers of a file stand for."""
    quantization = target["quantization_parameters"]
    if y.dtype.kind in "iu" and len(quantization["scales"]):
        zero, scale = quantization["zero_points"][0], quantization["scales"][0]
        return (y.astype("float32") - zero) * scale
    return y


def _check_ends(file: Path, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise ValueError(
            "Expected a file of one input and one output, to measure an accuracy. "
            f"Received: '{file}' with {inputs} inputs, {outputs} outputs. Leave "
            "`data` out."
        )


def _check_shape(file: Path, x: np.ndarray, signature: Any) -> None:
    shape = tuple(int(size) for size in signature)
    if x.ndim != len(shape) or any(
        wanted not in (-1, got)
        for wanted, got in zip(shape[1:], x.shape[1:], strict=True)
    ):
        raise ValueError(
            f"Expected data of shape (rows, {', '.join(map(str, shape[1:]))}), which "
            f"the file '{file}' takes. Received: data of shape {x.shape}."
        )
