"""Training data in an order that depends on the seed and the step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """The batches `start` to `stop` of each epoch, shuffled by seed and epoch.

    Args:
        data: (x, y) or (x, y, sample_weight); arrays, or structures of them.
        batch_size: examples in a batch. What is left over at the end of an epoch is
            dropped, so that every step has the same shape.
        seed: seed of the order; `None` keeps the data's own.
        start, stop: which of the epoch's batches.
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
        # TensorFlow would stack a list of inputs to one tensor.
        self.data = keras.tree.lists_to_tuples(data)
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.stop = stop
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffles for an epoch."""
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


def is_tf_dataset(x: Any) -> bool:
    """Whether `x` is a `tf.data.Dataset`; TensorFlow is not imported for it."""
    return hasattr(x, "element_spec") and hasattr(x, "cardinality")


@dataclass(frozen=True)
class Data:
    """What a search trains and judges on.

    Args:
        train: (x, y) or (x, y, sample_weight) of arrays, or a batched
            `tf.data.Dataset`.
        validation: of the same kinds; chooses the early stop and the best ticket.
        test: of the same kinds or `None`; is only reported.
        batch_size: examples in a training step, for arrays.
        shuffle: whether arrays are shuffled in every epoch.
    """

    train: Any
    validation: Any
    test: Any = None
    batch_size: int = 32
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.validation is None:
            raise ValueError(
                "A search needs `validation_data=(x, y)`: they find the early stop and "
                "choose the best ticket. Hold out a part of the training data."
            )
        if self.batch_size < 1:
            raise ValueError(
                f"Expected a batch size of at least 1. Received: {self.batch_size}"
            )
        for name in ("train", "validation", "test"):
            _check(name, getattr(self, name))

    @property
    def parts(self) -> list[Any]:
        """All that there is: training, validation and, perhaps, test data."""
        return [self.train, self.validation, self.test or ()]

    @property
    def arrays(self) -> tuple[Any, Any] | None:
        """Training inputs and targets, where they are arrays."""
        return None if is_tf_dataset(self.train) else self.train[:2]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training data."""
        if is_tf_dataset(self.train):
            return int(self.train.cardinality())
        return max(self._size // self.batch_size, 1)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Which examples make each batch of an epoch, for arrays.

        Returns:
            Indices of shape [steps of an epoch, examples in a batch].
        """
        batches = self.batches(0, self.steps_per_epoch, seed)
        batches.set_epoch(epoch)
        rows = np.reshape(
            batches.order[: len(batches) * batches.batch_size],
            (len(batches), batches.batch_size),
        )
        return rows.astype("int32")

    @property
    def _size(self) -> int:
        return len(keras.tree.flatten(self.train)[0])

    def batches(self, start: int, stop: int, seed: int) -> Any:
        """Batches `start` to `stop` of an epoch, as `fit` takes them."""
        if is_tf_dataset(self.train):
            return self.train.skip(start).take(stop - start)
        size = min(self.batch_size, self._size)
        return Batches(self.train, size, seed if self.shuffle else None, start, stop)


def _check(name: str, data: Any) -> None:
    """Raises ValueError if the data are not of a known, common length."""
    if data is None:
        return
    if is_tf_dataset(data):
        if int(data.cardinality()) < 1:
            raise ValueError(
                f"Expected {name} data of a known length. Received: a data set of "
                "unknown, infinite or no length. Use `dataset.take(n)` or "
                "`tf.data.experimental.assert_cardinality`."
            )
        return
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise ValueError(
            f"Expected {name} data (x, y), (x, y, sample_weight) or a "
            f"`tf.data.Dataset`. Received: {type(data).__name__}"
        )
    lengths = {
        len(array) if hasattr(array, "__len__") else None
        for array in keras.tree.flatten(tuple(data))
    }
    if len(lengths) != 1 or lengths & {0, None}:
        raise ValueError(
            f"Expected {name} arrays of one length, at least 1. Received: {lengths}"
        )


def pieces(
    start: int, stop: int, steps_per_epoch: int
) -> Iterator[tuple[int, int, int, int]]:
    """Cuts steps `start` to `stop` into runs of alike epochs.

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
        ValueError: if it is given twice or not at all, or a number is out of range.
    """
    if eval_freq != "epoch" and (isinstance(eval_freq, str) or eval_freq < 1):
        raise ValueError(
            "Expected `eval_freq` to be 'epoch' or a number of steps, at least 1. "
            f"Received: eval_freq={eval_freq!r}"
        )
    if (epochs is None) == (steps is None) or (epochs or steps or 0) < 1:
        raise ValueError(
            "Expected the length of the training: either `epochs` or `steps`, at least "
            f"1. Received: epochs={epochs}, steps={steps}"
        )
    return steps or (epochs or 0) * data.steps_per_epoch
