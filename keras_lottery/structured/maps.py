"""The feature maps of filters over data."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.graph import Use, run
from keras_lottery.keras_bridge.layers.recurrent import (
    at_rest,
    batch_size_of,
    check_whole_batches,
)
from keras_lottery.structured.channels import Call
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.inputs import arrays_of
from keras_lottery.tickets import Snapshot

BATCH = 256


def batches(graph: Graph, snapshot: Snapshot) -> Iterator[list[Any]]:
    """Yields batches of the snapshot's inputs as tensors, in the model's order."""
    arrays, dtypes = arrays_of(graph.model, snapshot.inputs())
    check_whole_batches(graph.model, len(arrays[0]))
    size = batch_size_of(graph.model) or BATCH
    for start in range(0, len(arrays[0]), size):
        with at_rest(graph.model):
            yield [
                keras.ops.convert_to_tensor(array[start : start + size], dtype)
                for array, dtype in zip(arrays, dtypes, strict=True)
            ]


def of_feature_maps(
    graph: Graph,
    snapshot: Snapshot,
    groups: np.ndarray,
    reduce: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns a function's values for the filters' maps (images, *places, filters).

    Of all tensors with these filters, the maps are the last one of the largest size:
    behind the activation, and before the pooling. The function is applied batch by
    batch, since the maps of all inputs at once would take much memory.
    """
    number, output = _largest(graph, groups)
    order = np.argsort(graph.groups[graph.calls[number].outputs[output].atoms])
    found: list[np.ndarray] = []
    for batch in batches(graph, snapshot):
        calls = iter(range(len(graph.calls)))

        def execute(use: Use, values: list[Any]) -> list[Any]:
            made = use.compute(values)
            if next(calls) == number:  # noqa: B023
                maps = np.asarray(current().array(made[output]), "float32")
                found.append(reduce(maps[..., order]))
            return made

        run(graph.model, batch, execute)
    return np.concatenate(found)


def _largest(graph: Graph, groups: np.ndarray) -> tuple[int, int]:
    """Returns the call and the output with exactly these groups and most positions."""
    wanted = np.sort(groups)

    def places(call: Call, output: int) -> int:
        return math.prod(size or 1 for size in call.output_shapes[output][1:-1])

    having = [
        (places(call, output), number, output)
        for number, call in enumerate(graph.calls)
        for output, tensor in enumerate(call.outputs)
        if np.array_equal(np.sort(graph.groups[tensor.atoms]), wanted)
    ]
    _, number, output = max(having)
    return number, output
