"""Chooses the granularity of pruning with which files for a target become fast."""

import math
from dataclasses import dataclass

import keras

from keras_lottery.keras_bridge.internals.graph import has_graph
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.keras_bridge.layers.convert import XNNPACK, Prunable
from keras_lottery.keras_bridge.xnnpack import sparse_layers, steps_of
from keras_lottery.tickets.grouping import Granularity

DENSE = (keras.layers.Dense, keras.layers.EinsumDense)


@dataclass(frozen=True)
class Choice:
    """A granularity, the layers to prune, and the reason for the choice."""

    granularity: Granularity
    prunable: Prunable
    why: str


def for_target(model: keras.Model, target: str, filters: bool = True) -> Choice:
    """The granularity that makes files of a model for a target small and fast.

    Args:
        model: the model.
        target: a key of `WAYS`.
        filters: whether whole filters may be pruned.
    """
    graph = has_graph(model)
    sizes = _sizes(model)
    total = sum(sizes.values()) or 1
    hint = ""
    if target == "mobile" and graph:
        fitting = sparse_layers(model)
        pointwise = {id(s.layer) for s in steps_of(model) if s.kernel is not None}
        if sum(size for key, size in sizes.items() if key in pointwise) > total / 2:
            hint = ", unless kl.export.adapt_for_xnnpack lets ARM run them sparsely"
        share = sum(size for key, size in sizes.items() if key in fitting) / total
        if share > 0.5:
            why = f"ARM runs 1x1 convolutions sparsely, {share:.0%} of the weights"
            return Choice("weight", XNNPACK, why)
    dense = {id(layer) for _, layer in walk(model) if isinstance(layer, DENSE)}
    share = sum(size for key, size in sizes.items() if key in dense) / total
    if target == "mobile" and share > 0.5:
        why = f"LiteRT runs dense layers, {share:.0%} of the weights, faster so"
        return Choice("block_1x4", None, why)
    if not graph:
        why = (
            "filters cannot be removed from a subclassed model; zeros shrink downloads"
        )
        return Choice("weight", None, why)
    if not filters:
        why = "the criterion or the repair is one of weights; zeros shrink downloads"
        return Choice("weight", None, why)
    runs = {
        "mobile": f"convolutions run faster with fewer filters{hint}",
        "server": "TensorFlow runs smaller layers faster, and zeros as any number",
        "microcontroller": "LiteRT Micro reads dense weights alone: fewer of them",
        "onnx": "ONNX Runtime runs smaller layers faster, and zeros as any number",
        "openvino": "OpenVINO runs smaller layers faster, and zeros as any number",
    }
    return Choice("filter", None, runs[target])


def _sizes(model: keras.Model) -> dict[int, int]:
    """The number of weights in kernels, by the `id` of the layer."""
    return {
        id(layer): sum(math.prod(w.shape) for w in layer.weights if len(w.shape) > 1)
        for _, layer in walk(model)
        if not list(walk(layer))
    }
