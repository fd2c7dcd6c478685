"""Trains tickets in a compiled loop over many steps, with the data on the device.

The work of `fit` between two steps (fetching a batch, calling callbacks, updating
training metrics) takes longer than a step of a small network. Here, all steps up to the
next validation form one program around the user's own model, loss and optimizer. Only
the update uses the masks: pruned weights start at zero and get no gradient.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol

import keras
import numpy as np
import psutil

from keras_lottery.engines.compacted import ELEMENTWISE
from keras_lottery.engines.data import Data
from keras_lottery.engines.distributed import is_distributed
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.fit import FitEngine
from keras_lottery.engines.record import TrainingRecord
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.datasets import is_dataset
from keras_lottery.keras_bridge.layers.recurrent import batch_size_of

# With these optimizers, a zero without a gradient stays zero. The updates of Adafactor
# and Lamb are not elementwise: they use norms and means as well.
KEEP_ZEROS = ELEMENTWISE | {keras.optimizers.Adafactor, keras.optimizers.Lamb}


class Loop(Protocol):
    """A backend's compiled loops over a model."""

    def compile(self) -> None:
        """Compiles training without changing the model.

        Raises:
            Exception: of any kind, if the model cannot be compiled.
        """

    def train(self, order: Any, first: int, last: int) -> None:
        """Trains on the batches `first` up to `last` of an epoch, and waits."""

    def evaluate(self, part: str) -> dict[str, float]:
        """The model's loss and metrics on a part of the data."""


LOOPS = ("tensorflow", "jax")
"""The backends with a loop of many steps in one program, each in a `loop_` module."""


class FusedEngine(FitEngine):
    """Trains tickets one after another, many steps in one compiled loop.

    The arguments are the same as those of `Engine`. A model that cannot be compiled is
    trained by `model.fit`, and a warning says why.
    """

    name = "fused"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loop: Loop | None = None
        self._compiles = True

    def smaller(self, model: keras.Model) -> Engine:
        """Same as `Engine.smaller`; both engines share the data on the device."""
        made = super().smaller(model)
        assert isinstance(made, FusedEngine)
        made.arrays = self.arrays
        return made

    @cached_property
    def arrays(self) -> tuple[dict[str, Any], Any]:
        """The data on the device, and the weights of the training examples.

        The data are (x, y, sample weights or None) for each part. The weights of the
        training examples are their sample weights or those of their classes.
        """
        parts = {name: weighted(part) for name, part in self.data.parts.items()}
        placed = {name: _backend().on_device(part) for name, part in parts.items()}
        if self.class_weight is None:
            return placed, placed["train"][2]
        weights = class_weights(parts["train"][1], self.class_weight)
        return placed, _backend().on_device(weights)

    def prepare(self) -> None:
        """Compiles the loops, as far as the backend can do so in advance."""
        self._compiled()

    def _compiled(self) -> Loop | None:
        """The loops, compiled at the first call; None if the model does not compile."""
        if self._loop is None and self._compiles:
            try:
                loop = _loop(self)
                loop.compile()
            except Exception as error:
                # If something is wrong with the model, `fit` raises a clearer error.
                self._compiles = False
                _warn(self.name, f"the model does not compile ({_line(error)})")
            else:
                self._loop = loop
        return self._loop

    def _runner(self, seed: int, record: TrainingRecord) -> Callable[[int, int], None]:
        loop = self._compiled()
        if loop is None:
            return super()._runner(seed, record)

        def run(begin: int, end: int) -> None:
            ordered = None
            for epoch, first, last in self._stretches(begin, end):
                if epoch != ordered:
                    ordered, order = epoch, self.data.order(seed, epoch)
                loop.train(order, first, last)
                record.reached(epoch * self.data.steps_per_epoch + last)
                if record.stopped:
                    break

        return run

    def _stretches(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(epoch, first batch, last batch + 1) of the stretches between validations."""
        length = self.data.steps_per_epoch
        while begin < end:
            epoch, first = divmod(begin, length)
            validation = begin - begin % self.eval_freq + self.eval_freq
            stop = min(end, validation, (epoch + 1) * length)
            yield epoch, first, stop - epoch * length
            begin = stop

    def _evaluate(self, part: str) -> dict[str, float]:
        loop = self._compiled()
        return super()._evaluate(part) if loop is None else loop.evaluate(part)


def _loop(engine: FusedEngine) -> Loop:
    constraints = [v.constraint for v in engine.model.trainable_variables]
    # The projection by a mask wraps the constraint that the layer had before.
    zeros = type(engine.optimizer) not in KEEP_ZEROS or any(
        getattr(constraint, "constraint", constraint) for constraint in constraints
    )
    shape = engine.data.order(0, 0).shape
    return _backend().Loop(engine.model, *engine.arrays, shape, zeros)


def _backend() -> Any:
    return import_module(f"keras_lottery.engines.loop_{keras.backend.backend()}")


def weighted(part: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Completes a part of the data to (x, y, sample weights or None)."""
    # A list of inputs would be stacked into one tensor.
    x, y, weights = (*keras.tree.lists_to_tuples(tuple(part)), None)[:3]
    return x, y, weights


def class_weights(y: Any, class_weight: dict[int, float]) -> np.ndarray:
    """The weight of each example by its class, same as in `fit`.

    Args:
        y: labels of shape (n,) or (n, 1), or one-hot of shape (n, classes).
        class_weight: weights by class; missing classes have weight 1.

    >>> class_weights(np.array([0, 2, 2]), {2: 0.5})
    array([1. , 0.5, 0.5], dtype=float32)
    """
    y = np.asarray(y)
    if y.ndim > 1:
        y = y.argmax(-1) if y.shape[-1] != 1 else y[..., 0]
    y = np.round(y).astype("int32")
    weights = np.ones(len(y), keras.config.floatx())
    for label, weight in class_weight.items():
        weights[y == label] = weight
    return weights


def obstacle(
    model: keras.Model,
    data: Data,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **others: Any,
) -> str | None:
    """Why the fused engine cannot train a model, or None.

    The arguments are the same as those of `Engine`.
    """
    if keras.backend.backend() not in LOOPS:
        return f"the backend is {keras.backend.backend()}"
    steps = ("train_step", "test_step", "make_train_function", "make_test_function")
    for method in (*steps, "fit", "evaluate"):
        if method in vars(model) or getattr(type(model), method) is not getattr(
            keras.Model, method
        ):
            return f"the model has its own `{method}`"
    if model.run_eagerly:
        return "the model is compiled with `run_eagerly=True`"
    if callbacks:
        names = ", ".join(type(callback).__name__ for callback in callbacks)
        return f"callbacks need `fit` ({names})"
    if is_distributed(model):
        return "the training is distributed"
    if batch_size_of(model):
        return "the model takes batches of a fixed size, or keeps recurrent states"
    if any(is_dataset(part) for part in data.parts.values()):
        return "the data are a `tf.data.Dataset` or a `PyDataset`"
    arrays = [np.asarray(array) for array in keras.tree.flatten(data.parts)]
    if any(array.dtype.kind not in "biuf" for array in arrays):
        return "the data are not arrays of numbers"
    need = sum(array.nbytes for array in arrays)
    free = free_memory()
    if 2 * need > free:
        return (
            f"the data take {need / 1e9:.1f} GB, more than half of the "
            f"{free / 1e9:.1f} GB of free memory"
        )
    return None


def free_memory() -> int:
    """Free memory in bytes: the device's own, or else the computer's.

    >>> free_memory() > 0
    True
    """
    own = backends.current().free_memory()
    return psutil.virtual_memory().available if own is None else own


def fall_back(wanted: str, used: str, reason: str) -> None:
    """Warns that a simpler engine is used."""
    message = f"engine='{wanted}' falls back to '{used}' here: {reason}."
    warnings.warn(message, stacklevel=3)


def _warn(name: str, reason: str) -> None:
    fall_back(name, "fit", reason)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"
