"""Copies of models and layers."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras.layers import InputLayer

from keras_lottery.keras_bridge.internals.graph import is_graph
from keras_lottery.keras_bridge.internals.layers import (
    build_like,
    children,
    copy_lambda,
)
from keras_lottery.keras_bridge.internals.randomness import undrawn
from keras_lottery.keras_bridge.layers.assets import copy_assets, copy_own
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.names import named_masks, named_variables, walk
from keras_lottery.keras_bridge.layers.state import finalize, read


def copy_model(
    model: keras.Model,
    configure: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
) -> keras.Model:
    """Returns a new model of the same architecture with new weights, not compiled.

    Args:
        model: a built model.
        configure: changes the config of a layer before the new layer is made from it.

    Raises:
        ValueError: if a layer cannot be rebuilt from its config.
    """
    new: dict[int, keras.layers.Layer] = {}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if id(layer) not in new:
            if is_graph(layer):
                new[id(layer)] = clone(layer, copy)
            else:
                new[id(layer)] = remade(layer, configure)
        return new[id(layer)]

    with keras.saving.custom_object_scope(own_objects(model)), undrawn():
        copied = copy(model)
        _check_apart(model, copied)
        _build_alike(model, copied)
    _check_alike(model, copied)
    return copied


def duplicate(model: keras.Model) -> keras.Model:
    """Returns a copy with the same weights, masks and seeds, not compiled."""
    new = copy_model(model)
    # An Input may belong to a nested model as well, and is then two in the copy.
    layers = [
        [each, *(one for _, one in walk(each) if not isinstance(one, InputLayer))]
        for each in (model, new)
    ]
    for old_layer, new_layer in zip(*layers, strict=True):
        # Parents come first, so that a child's own setting is written later, and that
        # of a variable last.
        new_layer.trainable = old_layer.trainable
    copy_assets(model, new)
    copy_own(model, new)
    sources, targets = _variables(model), _variables(new)
    for name, target in targets.items():
        # Copied, because JAX would otherwise train both models in one buffer.
        target.assign(read(sources[name]))
        target.trainable = sources[name].trainable
    for _, layer in walk(new):
        finalize(layer)
    return new


def clone(
    model: keras.Model,
    copy: Callable[[keras.layers.Layer], keras.layers.Layer],
    inputs: Any = None,
    call: Callable[..., Any] | None = None,
) -> keras.Model:
    """Returns a Sequential or Functional model of copied layers, not compiled.

    Args:
        model: the model.
        copy: makes the copy of a layer, one for all its uses.
        inputs: the new model's inputs, in the structure of `model.input`; by default
            inputs like those of the model.
        call: how a Functional model's copies are called: `(layer, *args, **kwargs)`.
    """
    # `clone_model` would compile the clone by serialising the loss, which fails for a
    # custom function.
    compiled, model.compiled = model.compiled, False
    try:
        how = {} if call is None else {"call_function": call}
        return keras.models.clone_model(model, inputs, clone_function=copy, **how)
    finally:
        model.compiled = compiled


def remade(layer: Any, configure: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Returns a new layer made from a layer's config, with its vocabulary if any.

    Args:
        layer: a layer, or a function of `keras.ops`. Its variables are not copied.
        configure: changes the config before the new layer is made from it.

    Raises:
        ValueError: if the layer cannot be rebuilt.
    """
    if isinstance(layer, keras.layers.Lambda):
        return copy_lambda(layer)
    try:
        config = configure(layer.get_config())
        named = _with_named_types(config) if isinstance(layer, keras.Model) else config
        new = type(layer).from_config(named)
    except Exception as error:
        raise ValueError(
            f"'{layer.name}' of class {type(layer).__name__} cannot be rebuilt from "
            "its config. Implement `get_config` (and `from_config`, if arguments are "
            "layers or other objects), and register functions and objects of your "
            f"own with `keras.saving.register_keras_serializable`. Keras says: {error}"
        ) from error
    copy_assets(layer, new)
    return new


def _with_named_types(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a model's config with the name of its dtype policy, if that is enough.

    The model may pass its policy on to the layers that it creates, as keras-hub's
    backbones do. If a layer without a `get_config` receives a policy instead of a name,
    Keras does not record its arguments.
    """
    policy = config.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") == "DTypePolicy":
        return {**config, "dtype": policy["config"]["name"]}
    return config


def own_objects(model: keras.Model) -> dict[str, Any]:
    """Returns the custom classes and functions that a model is made of."""
    objects: dict[str, Any] = {}
    parts = (keras.initializers.Initializer, keras.regularizers.Regularizer)
    for layer in [model, *(layer for _, layer in walk(model))]:
        found: list[Any] = [class_of(layer)]
        for name, value in vars(layer).items():
            # Keras wraps these two for each layer.
            if inspect.isfunction(value) and name not in ("build", "quantize"):
                found.append(value)
            elif isinstance(value, (*parts, keras.constraints.Constraint)):
                found.append(type(value))
        for thing in found:
            if (thing.__module__ or "").partition(".")[0] != "keras":
                objects[thing.__name__] = thing
                objects[keras.saving.get_registered_name(thing)] = thing
    return objects


def _build_alike(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Builds a layer and its inner layers in the same way as the old ones."""
    if not old.built:
        return
    has_build = type(old).build is not keras.layers.Layer.build
    if has_build and not new.built:
        new.build_from_config(old.get_build_config())
    for one, other in zip(children(old), children(new), strict=False):
        _build_alike(one, other)
    if not has_build:
        build_like(new, old)


def _check_apart(old: keras.Model, new: keras.Model) -> None:
    own = {id(layer) for _, layer in walk(old)}
    for path, layer in walk(new):
        if id(layer) in own:
            raise ValueError(
                f"The copy of model '{old.name}' would share the layer '{path}' with "
                "it, since a `get_config` returns the layer itself. Return "
                "`keras.saving.serialize_keras_object(layer)` there, and make the "
                "layer of that in `from_config`, by "
                "`keras.saving.deserialize_keras_object`."
            )


def _check_alike(old: keras.Model, new: keras.Model) -> None:
    one, other = (
        {name: tuple(variable.shape) for name, variable in _variables(model).items()}
        for model in (old, new)
    )
    if one != other:
        raise ValueError(
            f"The config of model '{old.name}' does not give the same model. "
            f"Missing: {sorted(one.keys() - other.keys())}. "
            f"New: {sorted(other.keys() - one.keys())}. Other shapes: "
            f"{sorted(n for n in one.keys() & other.keys() if one[n] != other[n])}. "
            "Let `get_config` return every argument of the constructor, and create "
            "every layer and variable in `__init__` or `build`. A layer that is used "
            "both inside another one and outside cannot be copied."
        )


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    masks = {f"{name}_mask": mask for name, (mask, _) in named_masks(model).items()}
    return named_variables(model) | masks
