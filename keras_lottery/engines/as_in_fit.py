"""Converts the data that `fit` accepts into the forms that engines train on."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.data import Data, argument_of
from keras_lottery.keras_bridge.datasets import (
    is_dataset,
    is_ragged,
    is_sparse,
    is_tf_dataset,
    length_of,
)

CLASS_WEIGHT = "weights by class, as in `fit`"
PAD = (
    "Pad the examples, as `keras.utils.pad_sequences(x, padding='post')` does, and let "
    "the model leave the padding out, by `keras.layers.Masking` or `mask_zero=True`."
)


def gather(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float = 0.0,
    test_data: Any = None,
    batch_size: int = 32,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
) -> Data:
    """Checks the data and converts them to the few forms that engines know.

    The arguments are the same as those of `LotteryTicketSearch.search`. Data sets stay
    as they are. Everything else becomes NumPy arrays: data frames and series of pandas,
    tensors (except ragged and sparse ones), and generators, which are read only once
    because they cannot be rewound.

    Raises:
        ValueError: if a model cannot be trained on the data, or an argument does not
            fit them.
    """
    if isinstance(x, Iterator):
        batches = _read(x, steps_per_epoch, "steps_per_epoch")
        sizes = sorted({len(keras.tree.flatten(batch)[0]) for batch in batches})
        if len(sizes) > 1:
            raise ValueError(
                "Expected a generator of batches of one size, as every step has the "
                f"same shape. Received: batches of {sizes} examples. Take fewer "
                "`steps_per_epoch`, or give arrays or a `keras.utils.PyDataset`."
            )
        batch_size, steps_per_epoch = sizes[0], None
        train: Any = _together(batches)
        _refuse(x, y, sample_weight)
    elif is_dataset(x):
        train = x
        _refuse(x, y, sample_weight)
    else:
        weights = () if sample_weight is None else (sample_weight,)
        train = _arrays("train", (x, y, *weights))
    if steps_per_epoch is not None:
        checks.count("steps_per_epoch", steps_per_epoch, 1)
    if steps_per_epoch is not None and (not is_dataset(train) or length_of(train)):
        raise ValueError(
            "Expected `steps_per_epoch` with a generator, or with a data set without a "
            f"known end. Received: steps_per_epoch={steps_per_epoch} with data that "
            "have one. Leave it out."
        )
    if checks.fraction("validation_split", validation_split):
        if validation_data is not None:
            raise ValueError(
                "Expected `validation_data` or `validation_split`. Received: both."
            )
        train, validation_data = _split(train, validation_split)
    validation = part("validation", validation_data, validation_steps)
    test = part("test", test_data, None)
    return Data(train, validation, test, batch_size, shuffle, steps_per_epoch)


def part(name: str, data: Any, steps: int | None) -> Any:
    """Checks and converts validation or test data, same as `gather`."""
    if isinstance(data, Iterator):
        return _together(_read(data, steps, f"{name}_steps"))
    if steps is None:
        return data if data is None or is_dataset(data) else _arrays(name, data)
    if not is_tf_dataset(data) or length_of(data):
        raise ValueError(
            f"Expected `{name}_steps` with a generator, or with a `tf.data.Dataset` "
            f"without a known end. Received: {name}_steps={steps} with other {name} "
            "data. Leave it out."
        )
    return data.repeat().take(steps)


def _refuse(x: Any, y: Any, sample_weight: Any) -> None:
    """Raises ValueError if targets or weights are given beside a data set."""
    if y is not None or sample_weight is not None:
        raise ValueError(
            "Expected neither `y` nor `sample_weight`, as the batches (x, y) or "
            f"(x, y, sample_weight) hold them. Received: both {type(x)} and arrays."
        )


def _arrays(name: str, data: Any) -> Any:
    """Converts (x, y) or (x, y, sample_weight) to NumPy arrays."""
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        return data  # `Data` reports the error.
    if data[1] is None:
        raise ValueError(f"Expected {name} data (x, y). Received: y=None")
    return keras.tree.map_structure(lambda leaf: _array(name, leaf), tuple(data))


def _array(name: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, np.ndarray):
        text = str | bytes
        if leaf.dtype == object and not all(isinstance(v, text) for v in leaf.flat):
            remedy = f"Use `.astype('float32')` where they are numbers. {PAD}"
            _refuse_shape(name, "an array of objects", remedy)
        return leaf
    if is_ragged(leaf):
        _refuse_shape(name, f"a {type(leaf).__name__}", PAD)
    if is_sparse(leaf):
        dense = "Make it dense: `tf.sparse.to_dense(x)`, `x.toarray()`, `x.todense()`."
        _refuse_shape(name, f"a {type(leaf).__name__}", dense)
    if hasattr(leaf, "to_numpy"):  # pandas
        array = leaf.to_numpy()
        is_text = array.dtype == object and all(isinstance(v, str) for v in array.flat)
        if array.dtype != object or is_text:
            return array
        raise ValueError(
            f"Expected {name} data of one kind of numbers. Received: a "
            f"{type(leaf).__name__} of mixed or missing values. Use "
            "`.astype('float32')`."
        )
    if keras.ops.is_tensor(leaf):
        return keras.ops.convert_to_numpy(leaf)
    if hasattr(leaf, "__array__"):
        return np.asarray(leaf)
    raise ValueError(
        f"Expected {name} data as arrays. Received: {type(leaf)} in "
        f"{argument_of(name)}. Make it a NumPy array, as `np.array(list)` or "
        "`sparse.toarray()` do."
    )


def _refuse_shape(name: str, received: str, remedy: str) -> NoReturn:
    raise ValueError(
        f"Expected {name} data as dense arrays, of one shape for every example. "
        f"Received: {received} in {argument_of(name)}. {remedy}"
    )


def _split(train: Any, share: float) -> tuple[Any, Any]:
    """Splits off the last examples for validation, as `fit` does."""
    if is_dataset(train):
        raise ValueError(
            "Expected `validation_split` with arrays. Received: a data set. Split it "
            "by its `take` and `skip`, and give the rest as `validation_data`."
        )
    size = len(keras.tree.flatten(train)[0])
    first = int(size * (1 - share))
    if not 0 < first < size:
        raise ValueError(
            "Expected `validation_split` to leave examples on both sides. Received: "
            f"validation_split={share} of {size} examples"
        )
    return (
        keras.tree.map_structure(lambda array: array[:first], train),
        keras.tree.map_structure(lambda array: array[first:], train),
    )


def _read(batches: Iterator[Any], steps: int | None, argument: str) -> list[Any]:
    """Reads `steps` batches of a generator, and no more."""
    if argument == "test_steps":
        raise ValueError(
            "Expected test data with an end. Received: a generator. Give arrays."
        )
    if steps is None or steps < 1:
        raise ValueError(
            f"Expected `{argument}`: how many batches to read from the generator; they "
            f"are kept in memory. Received: {argument}={steps}"
        )
    read = list(itertools.islice(batches, steps))
    if len(read) < steps:
        raise ValueError(
            f"Expected a generator of {argument}={steps} batches. Received: one that "
            f"ended after {len(read)}; was it read before?"
        )
    return [_arrays("generated", batch) for batch in read]


def _together(batches: list[Any]) -> Any:
    """Concatenates batches to one."""
    if not all(isinstance(batch, tuple) for batch in batches):
        raise ValueError(
            "Expected a generator of (x, y) or (x, y, sample_weight). Received: "
            f"{type(batches[0])}"
        )
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)


def check_weights(y: Any, sample_weight: Any, class_weight: Any) -> None:
    """Raises ValueError for weights of examples that `fit` does not accept together."""
    if sample_weight is not None and class_weight is not None:
        raise ValueError(
            "Expected `sample_weight` or `class_weight`, as in `fit`. Received: "
            "both. Multiply the sample weights by those of the classes."
        )
    if class_weight is not None:
        checks.instance("class_weight", class_weight, Mapping, CLASS_WEIGHT)
        for weight in class_weight.values():
            checks.number("class_weight", weight, 0)
    if class_weight is not None and keras.tree.is_nested(y):
        raise ValueError(
            "Expected `class_weight` with one output, as in `fit`. Received: "
            "several targets. Use `sample_weight`."
        )
