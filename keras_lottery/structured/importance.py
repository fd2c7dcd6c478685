"""The importance of a residual stream's channels: their size behind normalisations."""

from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.graph import Use, run
from keras_lottery.keras_bridge.internals.masking import padding_mask
from keras_lottery.keras_bridge.layer_inputs import in_batches_of_inputs
from keras_lottery.keras_bridge.layers.recurrent import at_rest
from keras_lottery.structured.channels import Call, Tensor
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.inputs import arrays_of
from keras_lottery.structured.rules import (
    AttentionProjections,
    Normalized,
    given_to,
)
from keras_lottery.structured.rules.rule import array_of

BATCH = 32


def normalisations(graph: Graph) -> list[tuple[str, Tensor]]:
    """Returns the outputs of the normalisations over channels, by path, in order."""
    return [
        (graph.name(call.layer), call.outputs[0])
        for call in graph.calls
        if isinstance(graph.rules[id(call.layer)], Normalized)
    ]


def importance_of(graph: Graph, x: Any) -> np.ndarray:
    """Returns the importance of each group of channels, by its index."""
    tensors = [tensor for _, tensor in normalisations(graph)]
    squares = [np.zeros(tensor.width) for tensor in tensors]
    for batch in in_batches_of_inputs(graph.model, x, BATCH):
        measured = _sizes(graph, batch)
        for square, (sizes, counts) in zip(squares, measured, strict=True):
            positions = tuple(range(1, sizes.ndim - 1))
            total = (sizes * counts).sum(axis=positions)
            means = total / np.maximum(counts.sum(axis=positions), 1)
            square += np.sum(means**2, axis=0)
    importance = np.zeros(graph.groups.max() + 1)
    for tensor, square in zip(tensors, squares, strict=True):
        np.add.at(importance, graph.groups[tensor.atoms], np.sqrt(square))
    return importance


def _sizes(graph: Graph, batch: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns what normalisations return, without signs, and which positions count.

    Returns:
        For each use of a normalisation, an array (batch, *positions, channels), and
        booleans (batch, *positions, 1).
    """
    found: list[tuple[Any, np.ndarray, np.ndarray]] = []
    seen: dict[Any, np.ndarray] = {}
    calls = iter(graph.calls)

    def places(tensor: Tensor, counts: np.ndarray) -> Any:
        """Tells streams, and lengths, apart."""
        return graph.groups[tensor.atoms].tobytes(), counts.shape

    def execute(use: Use, values: list[Any]) -> list[Any]:
        call, made = next(calls), use.compute(values)
        rule = graph.rules[id(use.layer)]
        if isinstance(rule, Normalized):
            sizes = np.abs(np.asarray(current().array(made[0]), "float64"))
            counts = _without_padding(made[0])
            found.append((places(call.outputs[0], counts), sizes, counts))
        elif isinstance(rule, AttentionProjections):
            counts = _seen(rule, call, values)
            where = places(rule.read(call, call.inputs)["value"], counts)
            seen[where] = seen.get(where, False) | counts
        return made

    arrays, dtypes = arrays_of(graph.model, batch)
    tensors = map(keras.ops.convert_to_tensor, arrays, dtypes)
    with at_rest(graph.model):
        run(graph.model, list(tensors), execute)
    return [
        (sizes, (counts & seen.get(where, True))[..., np.newaxis])
        for where, sizes, counts in found
    ]


def _seen(rule: AttentionProjections, call: Call, values: list[Any]) -> np.ndarray:
    """Marks the positions (batch, *positions) of the values that any query sees."""
    seen = _without_padding(rule.read(call, values)["value"])
    if seen.ndim != 2:
        return seen
    given = given_to(call, values)
    for name in ("attention_mask", "value_mask", "key_mask"):
        if given.get(name) is not None:
            mask = array_of(given[name]).astype(bool)
            if name == "attention_mask":
                # Axes ([batch, [heads,]] queries, keys).
                queries = tuple(range(mask.ndim > 2, mask.ndim - 1))
                mask = np.any(mask, axis=queries, keepdims=True)
                mask = mask.reshape(-1, mask.shape[-1])
            seen &= mask
    return seen


def _without_padding(tensor: Any) -> np.ndarray:
    """Marks the positions (batch, *positions) that Keras's mask leaves in."""
    counts = np.ones(tuple(tensor.shape)[:-1], bool)
    mask = padding_mask(tensor)
    if mask is not None:
        array = array_of(mask).astype(bool)
        counts &= array.reshape(*array.shape, *[1] * (counts.ndim - array.ndim))
    return counts
