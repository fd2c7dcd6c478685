"""The loss of a model, as a function of factors that its channels are multiplied by."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.gradients import check_compiled, length
from keras_lottery.keras_bridge.graph import Use, pack_outputs, run
from keras_lottery.keras_bridge.internals.models import compute_loss, without_penalties
from keras_lottery.keras_bridge.layers.recurrent import (
    at_rest,
    batch_size_of,
    check_whole_batches,
)
from keras_lottery.structured.channels import Call
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.inputs import arrays_of
from keras_lottery.structured.rules import Linear
from keras_lottery.tickets import Snapshot

EXAMPLES = 256
"""The number of examples on which the loss is computed, if there are as many."""

BATCHES = 8
"""The largest number of batches, for a model whose batch size is fixed."""


@dataclass(frozen=True, repr=False)
class LossWithFactors:
    """The loss as a function of factors that multiply channels as layers read them.

    The calls before the first of these layers are computed once.

    Args:
        graph: the graph of the snapshot's model.
        snapshot: a snapshot with training data.
        groups: the indices of the groups of channels that the function's factors are
            for.
        factors: a factor for each group of the model, used for all groups that are not
            in `groups`.

    Raises:
        ValueError: at the first call, if the model is not compiled, or there are no
            targets.
    """

    graph: Graph
    snapshot: Snapshot
    groups: np.ndarray
    factors: np.ndarray

    def __call__(self, factors: np.ndarray) -> float:
        """Returns the loss for a factor for each of `groups`."""
        every = self.factors.copy()
        every[self.groups] = factors
        tensor = keras.ops.convert_to_tensor(every, "float32")
        with at_rest(self.graph.model):
            loss = float(keras.ops.convert_to_numpy(self._function(tensor)))
        if np.isnan(loss):
            raise ValueError(
                f"The loss of model '{self.graph.model.name}' on `data` is NaN. Look "
                "for NaN in the data and in the weights, and for targets that the loss "
                "does not take."
            )
        return loss

    @cached_property
    def _function(self) -> Callable[[Any], Any]:
        check_compiled(self.snapshot.model)
        parts = list(map(self._part, self._batches()))

        def loss(factors: Any) -> Any:
            return sum(part(factors) for part in parts) / len(parts)

        return current().compiled(loss)

    def _part(self, pair: tuple[Any, Any]) -> Callable[[Any], Any]:
        """Returns the loss on a batch (x, y), as a function of the factors."""
        model = self.graph.model
        x, y = keras.tree.map_structure(keras.ops.convert_to_tensor, pair)
        arrays, dtypes = arrays_of(model, pair[0])
        batch = [
            keras.ops.convert_to_tensor(array, dtype)
            for array, dtype in zip(arrays, dtypes, strict=True)
        ]
        known: list[list[Any]] = []
        self._run(batch, keras.ops.convert_to_tensor(self.factors, "float32"), known)
        del known[self._first :]

        def loss(factors: Any) -> Any:
            # Keras tracks the losses of several outputs in variables.
            with keras.StatelessScope(), without_penalties(model):
                outputs = pack_outputs(model, self._run(batch, factors, list(known)))
                return compute_loss(model, x, y, outputs, training=False)

        return loss

    def _run(self, batch: list[Any], factors: Any, made: list[list[Any]]) -> list[Any]:
        """Returns the model's outputs; `made` holds the results of the first calls.

        The results of the other calls are appended to `made`.
        """
        calls = iter(self.graph.calls)
        computed = iter(list(made))

        def execute(use: Use, values: list[Any]) -> list[Any]:
            call = next(calls)
            known = next(computed, None)
            if known is not None:
                return known
            if self._reads(call):
                own = keras.ops.take(factors, self.graph.groups[call.inputs[0].atoms])
                values = [values[0] * keras.ops.cast(own, values[0].dtype)]
            made.append(use.compute(values))
            return made[-1]

        return run(self.graph.model, batch, execute)

    def _reads(self, call: Call) -> bool:
        return isinstance(self.graph.rules[id(call.layer)], Linear)

    @property
    def _first(self) -> int:
        """The index of the first call that reads one of the channels."""
        return next(
            (
                number
                for number, call in enumerate(self.graph.calls)
                if self._reads(call)
                and np.isin(self.graph.groups[call.inputs[0].atoms], self.groups).any()
            ),
            len(self.graph.calls),
        )

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        """Yields a part of the data (x, y), the same part for each layer.

        It is one batch, or several if the model has a fixed batch size.
        """
        x, y = self.snapshot.training_data()
        count, fixed = length(x), batch_size_of(self.graph.model)
        check_whole_batches(self.graph.model, count)
        size = fixed or min(EXAMPLES, count)
        batches = min(count // size, BATCHES) if fixed else 1
        order = np.random.default_rng(count).permutation(count)
        for some in np.split(order[: batches * size], batches):
            rows = np.sort(some)
            yield keras.tree.map_structure(lambda array: array[rows], (x, y))  # noqa: B023
