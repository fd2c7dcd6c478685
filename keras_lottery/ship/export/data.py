"""The data on which an exported file is checked."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers.recurrent import batch_size_of
from keras_lottery.ship.export.errors import in_short
from keras_lottery.ship.export.metrics import Metrics, classifies
from keras_lottery.ship.export.signature import Arrays, input_names

# The length of random inputs where the model accepts any.
LENGTH = 32


@dataclass(frozen=True)
class Checks:
    """Inputs for a file and its Keras model, and the means to measure its outputs."""

    inputs: Arrays
    described: str
    classes: np.ndarray | None = None
    are_random: bool = False
    metrics: Callable[[], Metrics] | None = None
    targets: Any = None

    def measured(self, outputs: Arrays) -> dict[str, float]:
        """The metrics of outputs, without the accuracy, which is reported separately.

        Raises:
            ValueError: if the metrics do not accept the test data.
        """
        if self.metrics is None:
            return {}
        try:
            found = self.metrics().of(outputs)
        except Exception as error:
            shapes = [np.shape(y) for y in keras.tree.flatten(self.targets)]
            reason = (
                "Expected `test_data` (x, y) of a y that the loss and the metrics of "
                f"`compile` take. Received: y of shapes {shapes}. Keras says: "
                f"{in_short(error)}"
            )
            if self.classes is None:
                raise ValueError(reason) from error
            warnings.warn(f"The accuracy alone is measured. {reason}", stacklevel=3)
            return {}
        if self.classes is None:
            return found
        return {k: v for k, v in found.items() if k not in ("accuracy", "loss")}

    @contextmanager
    def running(self, model: keras.Model) -> Iterator[None]:
        """Runs a model inside; its error says what to do if random inputs do not fit.

        Raises:
            ValueError: if the model does not accept random inputs.
        """
        try:
            yield
        except Exception as error:
            if not self.are_random:
                raise
            shapes = {name: array.shape for name, array in self.inputs.items()}
            raise ValueError(
                "Expected a model that takes random inputs to check its file on. "
                f"Received: model '{model.name}', which fails on inputs of {shapes}, "
                f"where an unknown length is {LENGTH}. Pass `test_data=(x, y)`, or, in "
                f"`to_litert`, `representative_data=x`. Keras says: {in_short(error)}"
            ) from error


def checks_for(
    model: keras.Model, test_data: Any, representative: Arrays | None = None
) -> Checks:
    """The checks on the test data, else the representative data, else random inputs."""
    if test_data is not None:
        if not isinstance(test_data, tuple | list) or len(test_data) != 2:
            raise ValueError(
                "Expected `test_data` to be a pair of arrays (x, y). Received: "
                f"test_data of type {type(test_data).__name__}."
            )
        inputs = as_inputs(model, test_data[0], "test_data")
        rows = _rows(inputs)
        described = f"{rows:,} rows of test data"
        classes, metrics, y = None, None, test_data[1]
        if len(model.outputs) == 1 and isinstance(y, list | tuple):
            y = np.asarray(y)
        measurable = _measurable(model, y, rows)
        # The targets of a regression may be whole numbers, too.
        if not measurable or classifies(model):
            try:
                classes = _classes(model, y, rows)
            except ValueError:
                if not measurable:
                    raise
        if measurable:
            # The metrics are made later, where their errors are reported.
            metrics = partial(Metrics, model, y)
        return Checks(inputs, described, classes, metrics=metrics, targets=y)
    if representative is not None:
        rows = _rows(representative)
        return Checks(representative, f"{rows:,} rows of representative data")
    # If the batch size is fixed, only whole batches can run.
    size = batch_size_of(model) or 1
    rows = size * max(1, 32 // size)
    inputs = _random_inputs(model, rows)
    return Checks(inputs, f"{rows} random rows", are_random=True)


def as_inputs(model: keras.Model, x: Any, argument: str) -> dict[str, np.ndarray]:
    """Converts inputs to arrays by name, and checks them against the model's inputs."""
    names = input_names(model)
    if isinstance(x, Mapping):
        given = {str(name): np.asarray(array) for name, array in x.items()}
    elif len(names) == 1:
        given = {names[0]: np.asarray(x)}
    elif isinstance(model.input, list | tuple) and isinstance(x, list | tuple):
        given = dict(zip(names, map(np.asarray, x), strict=False))
    else:
        given = {}
    tensors = dict(zip(names, model.inputs, strict=True))
    if (
        given.keys() != tensors.keys()
        or len({len(array) if array.ndim else 0 for array in given.values()}) != 1
        or not all(_fits(given[name], tensors[name]) for name in names)
    ):
        wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        received = {name: array.shape for name, array in given.items()}
        raise ValueError(
            f"Expected `{argument}` to hold the same number of rows, at least one, for "
            f"each input of {wanted}. Received: {received or type(x).__name__}. Pass "
            "an array for a model of one input, else a dictionary of arrays by name."
        )
    return {
        name: given[name].astype(_dtype(tensors[name]), copy=False) for name in names
    }


def some_rows(inputs: Arrays, most: int) -> Arrays:
    """At most `most` rows, spread evenly over the data."""
    rows = _rows(inputs)
    chosen = np.linspace(0, rows - 1, min(rows, most)).astype(int)
    return {name: array[chosen] for name, array in inputs.items()}


def accuracy(model: keras.Model, output: np.ndarray, classes: np.ndarray) -> float:
    """The share of rows whose largest output is that of the right class.

    A model with one output unit decides between two classes at 0.5, or at 0 if its loss
    takes logits.
    """
    if output.shape[-1] > 1:
        chosen = output.argmax(axis=-1)
    else:
        chosen = output[..., 0] > threshold_of(model)
    return float(np.mean(chosen == classes))


def threshold_of(model: keras.Model) -> float:
    """The threshold at which a model with one output unit decides for class 1."""
    from_logits = getattr(getattr(model, "loss", None), "from_logits", False)
    return 0.0 if from_logits else 0.5


def _classes(model: keras.Model, y: Any, rows: int) -> np.ndarray:
    """The labels as class numbers, in the output's shape without its last axis."""
    y = np.asarray(y)
    shape = tuple(model.outputs[0].shape)
    if y.ndim == len(shape) and y.shape[-1] == shape[-1] > 1:
        y = y.argmax(axis=-1)
    elif y.ndim == len(shape) and y.shape[-1] == 1:
        y = y[..., 0]
    if (
        len(model.outputs) > 1
        or y.ndim != len(shape) - 1
        or len(y) != rows
        or not np.array_equal(y, y.astype(int))
    ):
        raise ValueError(
            "Expected `test_data` (x, y) for a classifier of one output, with class "
            f"numbers or one-hot rows in y. Received: {len(model.outputs)} output(s), "
            f"the first of shape {shape}; {rows} rows of x; y of shape {y.shape} and "
            f"type {y.dtype}. Compile the model with the metrics that it is to be "
            "measured by, or leave `test_data` out to export without an accuracy."
        )
    classes = max(shape[-1] or 0, 2)
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f"Expected `test_data` (x, y) with classes from 0 to {classes - 1}. "
            f"Received: y from {y.min()} to {y.max()}."
        )
    return y.astype(int)


def _measurable(model: keras.Model, y: Any, rows: int) -> bool:
    """Whether the model's own metrics can be used: it is compiled, and rows agree."""
    lengths = [len(part) if np.ndim(part) else 0 for part in keras.tree.flatten(y)]
    return bool(model.compiled) and set(lengths) == {rows}


def _fits(array: np.ndarray, tensor: keras.KerasTensor) -> bool:
    return array.ndim == len(tensor.shape) and all(
        got == wanted or (wanted is None and got > 0)
        for got, wanted in zip(array.shape, (None, *tensor.shape[1:]), strict=True)
    )


def _random_inputs(model: keras.Model, rows: int) -> dict[str, np.ndarray]:
    """Random floats from 0 to 1, like images, or integers 0 and 1, valid embeddings."""
    rng = np.random.default_rng(0)
    inputs = {}
    for name, tensor in zip(input_names(model), model.inputs, strict=True):
        shape = (rows, *(LENGTH if size is None else size for size in tensor.shape[1:]))
        fractions = "float" in tensor.dtype
        values = rng.random(shape) if fractions else rng.integers(2, size=shape)
        inputs[name] = values.astype(_dtype(tensor))
    return inputs


def _dtype(tensor: keras.KerasTensor) -> str:
    return "str" if tensor.dtype == "string" else tensor.dtype


def _rows(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))
