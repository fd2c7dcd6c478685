"""A smaller model, built from a model's graph and the channels that stay."""

from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.graph import input_layers
from keras_lottery.keras_bridge.internals.graph import has_graph
from keras_lottery.keras_bridge.internals.randomness import undrawn
from keras_lottery.keras_bridge.layers import named_variables, walk
from keras_lottery.keras_bridge.layers.assets import copy_assets, copy_own
from keras_lottery.keras_bridge.layers.copying import clone, own_objects, remade
from keras_lottery.keras_bridge.layers.state import finalize, read
from keras_lottery.structured.channels import Tensor
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.rules import Keep, Rule, Weights, weights_of


def rebuild(graph: Graph, keep: Keep) -> keras.Model:
    """Returns a new model with the channels that stay and their weights.

    Args:
        graph: the model's graph.
        keep: returns which channels of a tensor stay.
    """
    shrunk = {id(r.layer): r.shrink(keep) for r in graph.rules.values()}
    made: dict[int, Any] = {}
    rules: dict[int, Rule] = {}

    def copy(layer: Any) -> Any:
        """Returns the new layer for a layer, one for all its uses."""
        if id(layer) not in made:
            if has_graph(layer):
                made[id(layer)] = build(layer, graph.entries[id(layer)])
            else:
                config, _ = shrunk[id(layer)]
                config |= _initializers(graph.rules[id(layer)], keep)
                made[id(layer)] = remade(layer, lambda own: {**own, **config})
                rules[id(made[id(layer)])] = graph.rules[id(layer)]
        return made[id(layer)]

    def call(new: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a new layer as the old one is called, with arrays cut accordingly."""
        if id(new) in rules:
            args, kwargs = rules[id(new)].arguments(args, kwargs, keep)
        return new(*args, **kwargs)

    def build(model: keras.Model, entries: list[Tensor] | None = None) -> keras.Model:
        inputs = [
            _input(layer, int(keep(entries[i]).sum()) if entries else None)
            for i, layer in enumerate(input_layers(model))
        ]
        if isinstance(model, keras.Sequential):
            steps = [copy(layer) for layer in model.layers]
            return keras.Sequential([inputs[0], *steps], name=model.name)
        structure = keras.tree.pack_sequence_as(model.input, inputs)
        return clone(model, copy, structure, call)

    with keras.saving.custom_object_scope(own_objects(graph.model)), undrawn():
        model = build(graph.model)
    for rule in graph.rules.values():
        _, weights = shrunk[id(rule.layer)]
        _copy_weights(rule.layer, made[id(rule.layer)], weights)
    _copy_trainable(graph, model, made)
    return model


def _input(layer: Any, channels: int | None) -> Any:
    """Returns a new input like that of an InputLayer, with the channels that stay."""
    config = layer.get_config()
    shape = config.pop("batch_shape")
    if channels:
        shape = (*shape[:-1], channels)
    return type(layer)(batch_shape=shape, **config).output


def _initializers(rule: Rule, keep: Keep) -> dict[str, Any]:
    """Returns the initial values of weights in a layer's config, cut accordingly."""
    if type(rule).cut is Rule.cut:
        return {}
    config = {}
    for name, initializer in vars(rule.layer).items():
        if isinstance(initializer, keras.initializers.Constant):
            array = np.asarray(keras.ops.convert_to_numpy(initializer.value))
            if not array.ndim:
                continue
            own, stem = weights_of(rule.layer), name.removesuffix("_initializer")
            weight = next((w for w in (stem, f"{stem}_kernel") if w in own), "kernel")
            if weight in own:
                array = np.broadcast_to(array, own[weight].shape)
                array = rule.cut(weight, array, keep)
                constant = keras.initializers.Constant(array)
                config[name] = keras.initializers.serialize(constant)
    return config


def _copy_trainable(graph: Graph, model: keras.Model, made: dict[int, Any]) -> None:
    inside = {
        id(old): new
        for rule in graph.rules.values()
        if isinstance(rule.layer, keras.layers.Layer)
        for (_, old), (_, new) in zip(
            walk(rule.layer), walk(made[id(rule.layer)]), strict=True
        )
    }
    # Parents come first, so that a layer's own setting is written last.
    model.trainable = graph.model.trainable
    for _, layer in walk(graph.model):
        if (new := made.get(id(layer), inside.get(id(layer)))) is not None:
            new.trainable = layer.trainable


def _copy_weights(old: Any, new: Any, weights: Weights) -> None:
    inside = named_variables(new) if any("/" in name for name in weights) else {}
    for name, array in weights.items():
        (inside[name] if "/" in name else getattr(new, name)).assign(array)
    if not weights and isinstance(old, keras.layers.Layer):
        # Matched by name, because quantisation adds variables in another order.
        sources = named_variables(old)
        for name, variable in named_variables(new).items():
            # Copied, because JAX would otherwise train both models in one buffer.
            variable.assign(read(sources[name]))
        copy_assets(old, new)
        copy_own(old, new)
        finalize(new)
