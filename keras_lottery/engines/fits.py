"""Checks whether data fit a model, before anything is trained."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.as_in_fit import part as gather_part
from keras_lottery.engines.data import Data, argument_of, check_data, first_batch
from keras_lottery.engines.evaluation import evaluate, evaluation_batch
from keras_lottery.keras_bridge.datasets import is_dataset
from keras_lottery.keras_bridge.layers.recurrent import batch_size_of

LABELS = {"sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"}
PROBABILITIES = {
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
}


def check_fits(model: keras.Model, data: Data) -> None:
    """Evaluates a compiled model on a few examples of each part of the data.

    Raises:
        ValueError: if a part does not fit the model, or the loss does not accept its
            targets: labels that are no classes of the output, or probabilities outside
            0 to 1.
    """
    _check_batches(model, data)
    for name, part in data.parts.items():
        _check_part(name, model, part, data.sample(name, batch_size_of(model)))


def part_of(argument: str, model: keras.Model, given: Any) -> Any:
    """Converts data to a form that `evaluate` knows, and checks that they fit.

    Raises:
        ValueError: if they cannot be converted, or do not fit the model.
    """
    data = gather_part(f"`{argument}`", given, None)
    check_data(f"`{argument}`", data)
    sample = first_batch(data, evaluation_batch(model))
    _check_part(f"`{argument}`", model, data, sample)
    return data


def _check_part(name: str, model: keras.Model, part: Any, sample: Any) -> None:
    if not is_dataset(part):
        _check_targets(name, model, *part[:2])
    try:
        evaluate(model, sample)
    except Exception as error:  # Keras or its backend may raise anything.
        unbatched = " Batch it: `dataset.batch(32)`." if _unbatched(part) else ""
        raise ValueError(
            f"Expected {name} data that fit the model.{unbatched} Received: shapes "
            f"{_shapes(sample)} in {argument_of(name)}, for which `model.evaluate` "
            f"says: {error}"
        ) from error


def _check_batches(model: keras.Model, data: Data) -> None:
    """Raises ValueError if arrays do not fill batches of the model's fixed size."""
    size = batch_size_of(model)
    for name, part in data.parts.items():
        if size is None or is_dataset(part):
            continue
        examples = len(keras.tree.flatten(part)[0])
        if examples % size or (name == "train" and data.batch_size != size):
            raise ValueError(
                f"Model '{model.name}' takes batches of {size} examples. Expected "
                f"`batch_size={size}`, and a multiple of {size} {name} examples. "
                f"Received: batch_size={data.batch_size} and {examples} {name} examples"
            )


def _unbatched(data: Any) -> bool:
    """Whether a `tf.data.Dataset` yields single examples instead of batches."""
    spec = getattr(data, "element_spec", None)
    return isinstance(spec, tuple) and any(
        not len(leaf.shape) for leaf in keras.tree.flatten(spec)
    )


def _shapes(sample: Any) -> Any:
    sample = tuple(getattr(sample, "element_spec", sample))
    return keras.tree.map_structure(lambda array: tuple(array.shape), sample)


def _check_targets(name: str, model: keras.Model, x: Any, y: Any) -> None:
    """Raises ValueError for targets that the loss would silently misinterpret."""
    size = batch_size_of(model) or 1
    try:
        one = keras.tree.map_structure(
            lambda array: keras.KerasTensor((size, *array.shape[1:]), array.dtype), x
        )
        outputs = model.compute_output_spec(one)
    except Exception:  # The evaluation that follows reports the error.
        return
    keys: Iterable[Any] = (None,)
    if keras.tree.is_nested(y):
        keys = y if isinstance(y, dict) else range(len(y))
    for key in keys:
        loss, targets = _of_output(model.loss, key), _of_output(y, key)
        output = _of_output(outputs, key)
        if output is None or keras.tree.is_nested(targets):
            continue
        kind = _kind(loss)
        config = loss.get_config() if isinstance(loss, keras.Loss) else {}
        if kind in PROBABILITIES and not np.all((targets >= 0) & (targets <= 1)):
            raise ValueError(
                f"Expected {name} targets from 0 to 1, as {kind} needs them. Received: "
                f"values from {targets.min()} to {targets.max()}"
            )
        if kind in LABELS:
            classes = output.shape[config.get("axis", -1)]
            is_class = np.isin(targets, np.arange(classes))
            is_class |= targets == config.get("ignore_class")
            if not np.all(is_class):
                raise ValueError(
                    f"Expected {name} labels that are whole numbers from 0 to "
                    f"{classes - 1}, as the model's output has {classes} classes. "
                    f"Received: {targets[~is_class][0]}"
                )


def _of_output(structure: Any, key: Any) -> Any:
    """The loss, target or value of one output in a structure of them, or None."""
    if not keras.tree.is_nested(structure):
        return structure
    try:
        return structure[key]
    except (KeyError, IndexError, TypeError):
        return None


def _kind(loss: Any) -> str:
    """The name of a Keras loss, whether it is a function or an object."""
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    return getattr(loss, "__name__", type(loss).__name__)
