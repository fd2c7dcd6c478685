"""Names a model's inputs and outputs, with the same names in every file.

An input is named by its key if the model takes a dictionary, else by the name given to
`keras.Input`, else `input_0`, `input_1`, … An output is named by its key if the model
returns a dictionary, else `output_0`, `output_1`, …, same as in Keras's own exports.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers.recurrent import batch_size_of

# The names that Keras gives to unnamed inputs, numbered by a counter.
AUTOMATIC = re.compile(r"(keras_tensor|input_layer)(_\d+)?")

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
"""A function that computes a model's outputs from its inputs, both by name."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a file's inputs by name; -1 stands for any size."""


def input_names(model: keras.Model) -> list[str]:
    """The names of `model.inputs`, in that order."""
    paths = keras.tree.flatten_with_path(structure(model, "input"))
    names = [
        path[-1] if path and isinstance(path[-1], str) else tensor.name
        for path, tensor in paths
    ]
    return [
        f"input_{i}" if AUTOMATIC.fullmatch(name) else _clean(name)
        for i, name in enumerate(names)
    ]


def output_names(model: keras.Model) -> list[str]:
    """The names of `model.outputs`, in that order."""
    paths = keras.tree.flatten_with_path(structure(model, "output"))
    return [
        path[-1] if path and isinstance(path[-1], str) else f"output_{i}"
        for i, (path, _) in enumerate(paths)
    ]


def input_signature(model: keras.Model) -> list[Any]:
    """The `input_signature` of `model.export` that gives the inputs their names."""
    specs = [
        keras.InputSpec(dtype=tensor.dtype, shape=tuple(tensor.shape), name=name)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    ]
    return [keras.tree.pack_sequence_as(structure(model, "input"), specs)]


def run_keras(model: keras.Model) -> Run:
    """A `Run` of the Keras model itself."""

    def run(inputs: Arrays) -> Arrays:
        values = [inputs[name] for name in input_names(model)]
        packed = keras.tree.pack_sequence_as(structure(model, "input"), values)
        outputs = keras.tree.flatten(model(packed, training=False))
        arrays = map(keras.ops.convert_to_numpy, outputs)
        return dict(zip(output_names(model), arrays, strict=True))

    return in_batches(run, 256, batch_size_of(model))


def in_batches(run: Run, most: int, fixed: int | None = None) -> Run:
    """Feeds `run` with at most `most` rows at a time, or with a fixed number of rows.

    With a fixed number, the last batch is filled by repeating the last row.
    """
    size = fixed or most

    def part(array: np.ndarray, start: int) -> np.ndarray:
        some = array[start : start + size]
        lacking = size - len(some) if fixed else 0
        return np.concatenate([some, some[-1:].repeat(lacking, axis=0)])

    def run_all(inputs: Arrays) -> Arrays:
        rows = len(next(iter(inputs.values())))
        parts = [
            run({name: part(array, start) for name, array in inputs.items()})
            for start in range(0, rows, size)
        ]
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return {name: array[:rows] for name, array in joined.items()}

    return run_all


def of_file(call: Run, shapes: Shapes, types: Mapping[str, Any]) -> Run:
    """Calls a file with inputs of its types, and with as many rows as it takes."""
    fixed = next((shape[0] for shape in shapes.values() if shape[:1] > (0,)), None)
    run = in_batches(call, 256, fixed)
    return lambda inputs: run({n: inputs[n].astype(types[n]) for n in shapes})


def structure(model: keras.Model, side: str) -> Any:
    """The model's inputs or outputs: a tensor, or a list or dictionary of tensors."""
    if isinstance(model, keras.Sequential):
        return getattr(model, f"{side}s")[0]
    return getattr(model, side)


def _clean(name: str) -> str:
    # TensorFlow's signatures allow no other characters.
    return re.sub(r"\W", "_", name)
