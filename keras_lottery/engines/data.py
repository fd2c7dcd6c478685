"""Training data in an order that depends only on the seed and the step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.datasets import (
    is_dataset,
    is_tf_dataset,
    length_of,
    read_whole,
)

Examples = Callable[[], tuple[Any, Any]]
"""A function that returns training inputs and targets."""
SAMPLE = 256
"""The most examples on which data are tested to fit a model."""


class Batches(keras.utils.PyDataset):
    """The batches from `start` up to `stop` of each epoch, shuffled by seed and epoch.

    Args:
        data: (x, y) or (x, y, sample_weight); arrays, or structures of them.
        batch_size: examples in a batch. The examples left over at the end of an epoch
            are dropped, so that every step has the same shape.
        seed: seed of the order; `None` keeps the data's own order.
        start, stop: the first batch of the epoch, and the one after the last.
    """

    def __init__(
        self,
        data: tuple[Any, ...],
        batch_size: int,
        seed: int | None,
        start: int,
        stop: int,
    ) -> None:
        super().__init__()
        # TensorFlow would stack a list of inputs into one tensor.
        self.data = keras.tree.lists_to_tuples(data)
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.stop = stop
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffles the examples for an epoch."""
        n = len(keras.tree.flatten(self.data)[0])
        self.order = np.arange(n)
        if self.seed is not None:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(n)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        first = (self.start + index) * self.batch_size
        chosen = self.order[first : first + self.batch_size]
        return keras.tree.map_structure(lambda array: array[chosen], self.data)


class Stretch(keras.utils.PyDataset):
    """The batches from `start` up to `stop` of each epoch of the user's `PyDataset`.

    Args:
        data: the `PyDataset`; its `on_epoch_begin` and `on_epoch_end` are called.
        length: batches in an epoch.
        seed: seed of the order of the batches; `None` keeps the data's own order.
        start, stop: the first batch of the epoch, and the one after the last.
    """

    def __init__(
        self,
        data: keras.utils.PyDataset,
        length: int,
        seed: int | None,
        start: int,
        stop: int,
    ) -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self.data = data
        self.length = length
        self.seed = seed
        self.start = start
        self.stop = stop
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the batches of an epoch; endless data continue with the next ones."""
        self.order = np.arange(self.length)
        if self.data.num_batches is None:
            self.order += epoch * self.length
        elif self.seed is not None:
            order = np.random.default_rng([self.seed, epoch])
            self.order = order.permutation(self.length)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.data[int(self.order[self.start + index])]

    def on_epoch_begin(self) -> None:
        """Calls the data's `on_epoch_begin` if the stretch begins an epoch."""
        if self.start == 0:
            self.data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Calls the data's `on_epoch_end` if the stretch ends an epoch."""
        if self.stop == self.length:
            self.data.on_epoch_end()


def first_batch(data: Any, size: int) -> Any:
    """A few examples with which to check whether data fit a model.

    Args:
        data: arrays or a data set.
        size: how many examples to take from arrays; a data set gives its first batch.
    """
    if is_tf_dataset(data):
        return data.take(1)
    if isinstance(data, keras.utils.PyDataset):
        return tuple(data[0])
    return keras.tree.map_structure(lambda array: array[:size], data)


@dataclass(frozen=True)
class Data:
    """The data on which a search trains and compares tickets.

    Args:
        train: (x, y) or (x, y, sample_weight) of arrays, a `keras.utils.PyDataset`, or
            a batched `tf.data.Dataset`.
        validation: one of the same kinds; it determines the early stop and the best
            ticket.
        test: one of the same kinds or `None`; results on it are only reported.
        batch_size: examples in a training step, for arrays.
        shuffle: whether arrays, and the batches of a `PyDataset`, are shuffled in every
            epoch.
        steps: steps in an epoch of training data without a known end; the next epoch
            continues where the last one stopped.
    """

    train: Any
    validation: Any
    test: Any = None
    batch_size: int = 32
    shuffle: bool = True
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.validation is None:
            raise ValueError(
                "A search needs `validation_data=(x, y)`, or `validation_split`: they "
                "find the early stop and choose the best ticket. Hold out a part of "
                "the training data."
            )
        checks.count("batch_size", self.batch_size, 1)
        checks.flag("shuffle", self.shuffle)
        if self.steps is not None:
            checks.count("steps_per_epoch", self.steps, 1)
        for name in ("train", "validation", "test"):
            if getattr(self, name) is not None and (name != "train" or not self.steps):
                check_data(name, getattr(self, name))

    @property
    def parts(self) -> dict[str, Any]:
        """The training, validation and, perhaps, test data, each with an end."""
        train = self.train
        if self.steps and is_tf_dataset(train):
            train = train.repeat().take(self.steps)
        elif self.steps:
            train = Stretch(train, self.steps, None, 0, self.steps)
        parts = {"train": train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def sample(self, name: str, fixed: int | None = None) -> Any:
        """A few examples of a part, with which to check whether it fits a model.

        Every part of arrays gives equally many, so that nothing is compiled twice:
        `fixed` if it is given, else a power of two, so that several devices can share
        them. A data set gives its first batch.
        """
        arrays = [part for part in self.parts.values() if not is_dataset(part)]
        least = min((len(keras.tree.flatten(part)[0]) for part in arrays), default=1)
        size = min(SAMPLE, 2 ** (least.bit_length() - 1))
        return first_batch(self.parts[name], fixed or size)

    def examples(self) -> tuple[Any, Any]:
        """Training inputs and targets as arrays; a data set is read once."""
        if is_dataset(self.train):
            return self._read
        return self.train[:2]

    @cached_property
    def _read(self) -> tuple[Any, Any]:
        return read_whole(self.parts["train"])

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training data."""
        if is_dataset(self.train):
            return self.steps or length_of(self.train) or 0
        return max(self._size // self.batch_size, 1)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The examples of each batch of an epoch, for arrays.

        Returns:
            Indices of shape [steps of an epoch, examples in a batch].
        """
        batches = self.batches(0, 0, self.steps_per_epoch, seed)
        batches.set_epoch(epoch)
        rows = np.reshape(
            batches.order[: len(batches) * batches.batch_size],
            (len(batches), batches.batch_size),
        )
        return rows.astype("int32")

    @property
    def _size(self) -> int:
        return len(keras.tree.flatten(self.train)[0])

    def batches(self, epoch: int, start: int, stop: int, seed: int) -> Any:
        """Batches `start` up to `stop` of an epoch and of those after it, for `fit`.

        A `tf.data.Dataset` without an end is returned without one, too: `fit` has to be
        told to take `stop - start` batches.
        """
        if is_tf_dataset(self.train):
            if self.steps:
                return self.train.repeat().skip(epoch * self.steps + start)
            return self.train.skip(start).take(stop - start)
        order = seed if self.shuffle else None
        if isinstance(self.train, keras.utils.PyDataset):
            return Stretch(self.train, self.steps_per_epoch, order, start, stop)
        size = min(self.batch_size, self._size)
        return Batches(self.train, size, order, start, stop)


def argument_of(name: str) -> str:
    """The name of the argument with which a part of the data is given.

    >>> argument_of("test")
    '`test_data`'
    """
    if name in ("validation", "test"):
        return f"`{name}_data`"
    return name if name[0] == "`" else "`x`, `y` and `sample_weight`"


def check_data(name: str, data: Any) -> None:
    """Raises ValueError unless data have a known, common length and finite values."""
    if is_dataset(data):
        if not length_of(data):
            remedy = {"train": "steps_per_epoch", "validation": "validation_steps"}
            raise ValueError(
                f"Expected {name} data of a known length. Received: a data set of "
                "unknown, infinite or no length. Use "
                + (f"`{remedy[name]}`, " if name in remedy else "")
                + "`dataset.take(n)` or `tf.data.experimental.assert_cardinality`."
            )
        return
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise ValueError(
            f"Expected {name} data (x, y), (x, y, sample_weight), a "
            f"`keras.utils.PyDataset` or a `tf.data.Dataset`. Received: {type(data)} "
            f"as {argument_of(name)}"
        )
    lengths = {
        len(array) if hasattr(array, "__len__") else None
        for array in keras.tree.flatten(tuple(data))
    }
    if len(lengths) != 1 or lengths & {0, None}:
        raise ValueError(
            f"Expected {name} arrays of one length, at least 1. Received: {lengths} "
            f"in {argument_of(name)}"
        )
    for array in keras.tree.flatten(tuple(data)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"Expected {name} data that are finite. Received: an array of shape "
                f"{array.shape} with NaN or infinite values. Leave out the examples "
                "that have them, or fill them: `np.nan_to_num(x)`."
            )


def pieces(
    start: int, stop: int, steps_per_epoch: int
) -> Iterator[tuple[int, int, int, int]]:
    """Cuts steps `start` up to `stop` into runs of epochs that need the same batches.

    Yields:
        (first epoch, last epoch + 1, first batch, last batch + 1) of each epoch.

    >>> list(pieces(15, 42, steps_per_epoch=10))
    [(1, 2, 5, 10), (2, 4, 0, 10), (4, 5, 0, 2)]
    """
    while start < stop:
        epoch, first = divmod(start, steps_per_epoch)
        whole = (stop - start) // steps_per_epoch
        if first or not whole:
            last = min(steps_per_epoch, first + stop - start)
            yield epoch, epoch + 1, first, last
            start += last - first
        else:
            yield epoch, epoch + whole, 0, steps_per_epoch
            start += whole * steps_per_epoch


def training_steps(
    data: Data, epochs: int | None, steps: int | None, eval_freq: int | str
) -> int:
    """The length of the dense training in steps.

    Raises:
        ValueError: if the length is given twice or not at all, or a number is out of
            range.
    """
    if not isinstance(eval_freq, str) or eval_freq != "epoch":
        checks.count("eval_freq", eval_freq, 1, remedy="Or 'epoch'.")
    if (epochs is None) == (steps is None):
        raise ValueError(
            "Expected the length of the training: either `epochs` or `steps`. "
            f"Received: epochs={epochs}, steps={steps}"
        )
    if steps is not None:
        return checks.count("steps", steps, 1)
    return checks.count("epochs", epochs, 1) * data.steps_per_epoch
