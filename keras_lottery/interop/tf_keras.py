"""Converts models of tf_keras (Keras 2) to Keras 3, with the same weights.

Layers are rebuilt from their configs, and the graph is traced through them. Keras 3 has
dropped and renamed some keys of the configs. A key that it does not know is refused,
unless the key is known to have no effect.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.internals.layers import children, own_variables
from keras_lottery.keras_bridge.layers.state import finalize

# Keys that no Keras 3 layer has, with the values that mean what Keras 3 always does.
_ANY = object()
_DROPPED: dict[str, Any] = {
    "batch_input_shape": _ANY,
    "groups": 1,
    "implementation": _ANY,
    "input_length": _ANY,
    "key_shape": _ANY,
    "query_shape": _ANY,
    "rng_type": "stateful",
    "softmax_robust_masking": False,
    "time_major": False,
    "value_shape": _ANY,
}
# Keys that have no effect in layers whose names begin in this way.
_UNREAD = {
    "SeparableConv": ("kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SpatialDropout": ("noise_shape", "trainable"),
    "Discretization": ("trainable",),
}
_WITH_GROUPS = ("Conv1D", "Conv2D", "Conv3D", "GroupNormalization")
# These layers hold tables or code that are neither in a config nor in weights.
_REFUSED = {
    "Hashing": "has no counterpart that is known to compute the same",
    "HashedCrossing": "has no counterpart that is known to compute the same",
    "IntegerLookup": "holds a vocabulary, which is not carried over",
    "Lambda": "holds Python code, which is not carried over",
    "SlicingOpLambda": "is an operation on a tensor written out in the model",
    "StringLookup": "holds a vocabulary, which is not carried over",
    "TFOpLambda": "is an operation on a tensor written out in the model",
    "TextVectorization": "holds a vocabulary, which is not carried over",
}
_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)
WRAPPER = "PruneLowMagnitude"


def unwrapped(layer: Any) -> Any:
    """The layer inside TFMOT's pruning wrapper, or the layer itself."""
    # The class is compared by name, so that a model without wrappers needs no TFMOT.
    return layer.layer if type(layer).__name__ == WRAPPER else layer


def input_structure(model: Any) -> Any:
    """The symbolic inputs of a tf_keras model, in the structure of its argument."""
    return model._nested_inputs


def is_model(layer: Any) -> bool:
    """Whether a tf_keras layer is a Sequential or Functional model."""
    return hasattr(layer, "_is_graph_network")


def walk(model: Any) -> Iterator[Any]:
    """Yields all layers of a tf_keras model and of its nested models, with wrappers."""
    for layer in model.layers:
        yield layer
        if is_model(layer):
            yield from walk(layer)


def convert(
    model: Any, custom_objects: Mapping[str, Any] | None = None
) -> tuple[keras.Model, list[tuple[Any, keras.Variable]]]:
    """Makes a Keras 3 model with the architecture and weights of a tf_keras model.

    Pruning wrappers are left out; the model is not compiled.

    Args:
        model: a built Sequential or Functional tf_keras model.
        custom_objects: Keras 3 classes and functions by their tf_keras name.

    Returns:
        The model, and each tf_keras variable with its Keras 3 counterpart.

    Raises:
        ValueError: if a layer cannot be converted; nothing has been built then.
    """
    custom = dict(custom_objects or {})
    with keras.saving.custom_object_scope(custom):
        layers = _new_layers(model, custom)
        new = _trace(model, layers)
    pairs: list[tuple[Any, keras.Variable]] = []
    # A model comes before its layers, so that their own settings are written last.
    for old in [model, *walk(model)]:
        old = unwrapped(old)
        layers[id(old)].trainable = old.trainable
    for old in walk(model):
        old = unwrapped(old)
        if not is_model(old):
            pairs += _copy_variables(old, layers[id(old)], old.name)
    return new, pairs


def _new_layers(model: Any, custom: dict[str, Any]) -> dict[int, Any]:
    """A Keras 3 layer for each layer that is no model, by the id of the old layer."""
    layers: dict[int, Any] = {}
    problems = {}
    for layer in walk(model):
        layer = unwrapped(layer)
        if is_model(layer):
            if not has_graph(layer):
                problems[layer.name] = _refusal(layer, "is a subclassed model")
        elif id(layer) not in layers:
            try:
                layers[id(layer)] = _new_layer(layer, custom)
            except Exception as error:
                problems[layer.name] = _refusal(layer, str(error))
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems.values())
        raise ValueError(
            f"These layers of '{model.name}' cannot be carried over to Keras 3:\n"
            f"{listing}\nPass a replacement for each class or function of your own: "
            "custom_objects={'its tf_keras name': the Keras 3 class or function}."
        )
    return layers


def has_graph(model: Any) -> bool:
    """Whether a tf_keras model is built, with known inputs and outputs."""
    return bool(model.built and model._is_graph_network and model.inputs)


def _refusal(layer: Any, reason: str) -> str:
    return f"'{layer.name}' ({type(layer).__name__}): {reason}"


def _new_layer(layer: Any, custom: dict[str, Any]) -> keras.layers.Layer:
    name = type(layer).__name__
    new_class = custom.get(name)
    if new_class is None:
        builtin = type(layer).__module__.partition(".")[0] == "tf_keras"
        if not builtin and name not in _REFUSED:
            raise ValueError("is a class of its own, unknown to Keras 3")
        new_class = _keras_class(name)
    config = _convert_config(name, layer.get_config(), custom)
    if name == "InputLayer":
        config["batch_shape"] = layer.get_config()["batch_input_shape"]
    return new_class.from_config(config)


def _keras_class(name: str) -> Any:
    if name in _REFUSED:
        raise ValueError(_REFUSED[name])
    if not hasattr(keras.layers, name):
        raise ValueError("is unknown to Keras 3")
    return getattr(keras.layers, name)


def _convert_config(
    name: str, config: Mapping[str, Any], custom: dict[str, Any]
) -> dict[str, Any]:
    """The Keras 3 form of the config of a layer, or of an object inside it."""
    if name in custom:
        return {key: _convert_value(key, v, custom) for key, v in config.items()}
    new = {}
    for key, value in config.items():
        if any(key in keys for stem, keys in _UNREAD.items() if name.startswith(stem)):
            continue
        if key in _DROPPED and not (key == "groups" and name in _WITH_GROUPS):
            if _DROPPED[key] is not _ANY and value != _DROPPED[key]:
                raise ValueError(f"Keras 3 has no {key}={value!r}")
            continue
        new[key] = _convert_value(key, value, custom)
    if name == "BatchNormalization" and isinstance(new["axis"], list):
        if len(new["axis"]) > 1:
            raise ValueError(f"Keras 3 takes one axis, not axis={new['axis']}")
        new["axis"] = new["axis"][0]
    if name == "LeakyReLU":
        new["negative_slope"] = float(new.pop("alpha"))
    return new


def _convert_value(key: str, value: Any, custom: dict[str, Any]) -> Any:
    if isinstance(value, Mapping) and {"class_name", "config"} <= value.keys():
        return _convert_object(key, value, custom)
    if isinstance(value, Mapping):
        return {k: _convert_value(k, v, custom) for k, v in value.items()}
    if isinstance(value, list):
        return [_convert_value(key, v, custom) for v in value]
    if key.endswith("activation") and isinstance(value, str):
        value = value.rpartition(">")[-1]
        if value in custom:
            return custom[value]
        if value == "hard_sigmoid":
            raise ValueError(
                "uses 'hard_sigmoid', which has another slope in Keras 3 "
                "(tf_keras: clip(0.2 x + 0.5, 0, 1))"
            )
    return value


def _convert_object(key: str, value: Mapping[str, Any], custom: dict[str, Any]) -> Any:
    """Converts a serialized object: a dtype policy, function, initializer or layer."""
    name, config = value["class_name"].rpartition(">")[-1], value["config"]
    if "Policy" in name:
        return config["name"]
    if name == "function":
        return _convert_value(key, config, custom)
    new = {"class_name": name, "config": _convert_config(name, config, custom)}
    if name in custom:
        return {**new, "module": None, "registered_name": name}
    # Layers and cells are checked like those of the model. Keras 3 looks up the others
    # (initializers, regularizers, constraints), and raises if it does not know one.
    if "layers" in (value.get("module") or "") or key in ("layer", "cell", "cells"):
        _keras_class(name)
        new["module"] = "keras.layers"
    return new


def _trace(model: Any, layers: dict[int, Any]) -> keras.Model:
    """Calls the new layers in the same way as the old ones, nested models first."""
    import tf_keras

    for layer in model.layers:
        if is_model(layer) and id(layer) not in layers:
            _trace(layer, layers)
    if isinstance(model, tf_keras.Sequential):
        given = model.inputs[0]
        start = keras.Input(batch_shape=tuple(given.shape), dtype=given.dtype.name)
        new = keras.Sequential(
            [start, *(layers[id(unwrapped(layer))] for layer in model.layers)],
            name=model.name,
        )
    else:
        tensors: dict[int, Any] = {}

        def traced(value: Any) -> Any:
            # A value that is no tensor of the graph is passed on unchanged.
            return tensors.get(id(value), value)

        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                layer = layers[id(unwrapped(node.layer))]
                if node.is_input:
                    outputs = layer.output
                else:
                    arguments, keywords = keras.tree.map_structure(
                        traced, (node.call_args, node.call_kwargs)
                    )
                    if isinstance(layer, _RECURRENT) and isinstance(arguments[0], list):
                        # tf_keras puts the initial state into the list of inputs.
                        (inputs, *state), *arguments = arguments
                        arguments = [inputs, *arguments]
                        keywords = {**keywords, "initial_state": state}
                    outputs = layer(*arguments, **keywords)
                for old, out in zip(
                    keras.tree.flatten(node.outputs),
                    keras.tree.flatten(outputs),
                    strict=True,
                ):
                    tensors[id(old)] = out
        new = keras.Model(
            keras.tree.map_structure(traced, input_structure(model)),
            keras.tree.map_structure(traced, model._nested_outputs),
            name=model.name,
        )
    layers[id(model)] = new
    return new


def _copy_variables(old: Any, new: Any, path: str) -> list[tuple[Any, keras.Variable]]:
    """Copies a layer's variables, and those of the layers inside it, in order."""
    sources = [*old._trainable_weights, *old._non_trainable_weights]
    targets = own_variables(new)
    shapes = [[tuple(v.shape) for v in side] for side in (sources, targets)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The layer '{path}' has weights of shapes {shapes[0]} in tf_keras and "
            f"{shapes[1]} in Keras 3: it cannot be carried over."
        )
    for source, target in zip(sources, targets, strict=True):
        target.assign(np.asarray(source))
    pairs = list(zip(sources, targets, strict=True))
    inside = old._flatten_layers(recursive=False, include_self=False), children(new)
    for source, target in zip(*map(_with_weights, inside), strict=True):
        pairs += _copy_variables(source, target, f"{path}/{source.name}")
    finalize(new)
    return pairs


def _with_weights(layers: Iterable[Any]) -> list[Any]:
    return [layer for layer in layers if layer.weights]
