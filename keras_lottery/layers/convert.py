"""From ordinary Keras models to masked ones, and back."""

import fnmatch
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_lottery.layers.masked import MASKED_LAYERS, Masked
from keras_lottery.layers.names import walk
from keras_lottery.layers.state import finalize, read

Prunable = Callable[[keras.layers.Layer], bool] | str | Iterable[str] | None


def mask_model(model: keras.Model, prunable: Prunable = None) -> keras.Model:
    """Returns a masked copy of a model, with the same weights and outputs.

    Every Dense, Conv1D, Conv2D, DepthwiseConv2D and SeparableConv2D layer that
    `prunable` chooses becomes its masked form, with masks that keep everything. Biases
    and normalisation are never masked. The given model is left untouched; if it is
    compiled, the copy is compiled alike, with a fresh optimizer.

    Args:
        model: a built Sequential or Functional model; shared layers and nested models
            may occur. Layers that are masked already keep their masks.
        prunable: which layers to mask. A function `layer -> bool`; a layer name or
            path, with wildcards (`"conv*"`, `"encoder/*"`); several of them; or `None`
            for all, or, in a model that has masked layers, for those alone.

    Raises:
        ValueError: if the model is not built or is a subclassed model, if a name
            matches no layer or one that has no masked form, or if no layer is left to
            mask.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> masked = mask_model(model)
    >>> [type(layer).__name__ for layer in masked.layers]
    ['MaskedDense']
    """
    check_convertible(model)
    chosen = _choose(model, prunable)

    def masked_class(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
        return MASKED_LAYERS[type(layer)] if id(layer) in chosen else type(layer)

    masked = _convert(model, masked_class)
    unreached = [
        path
        for (path, layer), (_, new) in zip(walk(model), walk(masked), strict=True)
        if id(layer) in chosen and not isinstance(new, Masked)
    ]
    if unreached:
        message = (
            f"These layers lie inside other layers and were not masked: {unreached}"
        )
        if prunable is not None or not is_masked(masked):
            raise ValueError(f"{message}. Leave them out of `prunable`.")
        warnings.warn(message, stacklevel=2)
    return masked


def strip_masks(model: keras.Model) -> keras.Model:
    """Returns a copy with ordinary Keras layers, the zeros of the masks baked in.

    Args:
        model: a masked model; it is left untouched.

    Raises:
        ValueError: if the model is not built or is a subclassed model.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> [type(layer).__name__ for layer in strip_masks(mask_model(model)).layers]
    ['Dense']
    """
    check_convertible(model)
    ordinary = {masked: plain for plain, masked in MASKED_LAYERS.items()}
    return _convert(model, lambda layer: ordinary.get(type(layer), type(layer)))


def is_masked(model: keras.Model) -> bool:
    """Whether the model has a masked layer."""
    return any(isinstance(layer, Masked) for _, layer in walk(model))


def copy_model(
    model: keras.Model,
    configure: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    layer_class: Callable[[keras.layers.Layer], type[keras.layers.Layer]] = type,
) -> keras.Model:
    """A new model of the same architecture with new weights, not compiled.

    Args:
        model: a Sequential or Functional model.
        configure: changes the config of a layer before the new layer is made of it.
        layer_class: the class of the new layer for each layer.
    """

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer_class(layer).from_config(configure(layer.get_config()))

    # `clone_model` would compile the clone by serialising the loss, which a function
    # of the user's does not survive.
    compiled, model.compiled = model.compiled, False
    try:
        return keras.models.clone_model(model, clone_function=copy, recursive=True)
    finally:
        model.compiled = compiled


def check_convertible(model: keras.Model) -> None:
    """Raises ValueError if the model is not a built Sequential or Functional model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Expected `model` to be a Keras model. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            f"Expected a built model. Received: model '{model.name}' without weights. "
            "Start it with `keras.Input(shape)` or call `model.build(input_shape)`."
        )
    # Only a Sequential or Functional model has symbolic inputs.
    if not getattr(model, "inputs", None):
        raise ValueError(
            "Expected a Sequential or Functional model with known inputs. Received: "
            f"model '{model.name}' of class {type(model).__name__}. Start it with "
            "`keras.Input(shape)`, or build its graph with `keras.Model(inputs, "
            "outputs)`."
        )


def _choose(model: keras.Model, prunable: Prunable) -> set[int]:
    """The ids of the layers to mask."""
    layers = list(walk(model))
    if prunable is None:
        # A model that has masked layers has had its layers chosen.
        chosen = [
            layer
            for _, layer in layers
            if type(layer) in MASKED_LAYERS and not is_masked(model)
        ]
    elif callable(prunable):
        chosen = [
            layer
            for _, layer in layers
            if type(layer) in MASKED_LAYERS and prunable(layer)
        ]
    else:
        chosen = _matches(layers, prunable)
    if not chosen and not any(isinstance(layer, Masked) for _, layer in layers):
        raise ValueError(
            "No layer to prune was found. Expected at least one layer of "
            f"{_class_names()} that `prunable` chooses. Received: "
            f"prunable={prunable!r} and these layers:\n{_listing(layers)}"
        )
    return {id(layer) for layer in chosen}


def _matches(
    layers: list[tuple[str, keras.layers.Layer]], prunable: str | Iterable[str]
) -> list[keras.layers.Layer]:
    chosen = []
    for pattern in [prunable] if isinstance(prunable, str) else list(prunable):
        # Keras's own name first: a stable path may be the name of another layer.
        matched = [
            layer for _, layer in layers if fnmatch.fnmatchcase(layer.name, pattern)
        ] or [layer for path, layer in layers if fnmatch.fnmatchcase(path, pattern)]
        able = [layer for layer in matched if type(layer) in MASKED_LAYERS]
        if not able and not any(isinstance(layer, Masked) for layer in matched):
            raise ValueError(
                f"`prunable` names {pattern!r}, which matches no layer that can be "
                f"masked ({_class_names()}). The model's layers:\n{_listing(layers)}"
            )
        chosen += able
    return chosen


def _class_names() -> str:
    return ", ".join(sorted(layer.__name__ for layer in MASKED_LAYERS))


def _listing(layers: list[tuple[str, keras.layers.Layer]]) -> str:
    return "\n".join(f"  {path} ({type(layer).__name__})" for path, layer in layers)


def _convert(
    model: keras.Model,
    layer_class: Callable[[keras.layers.Layer], type[keras.layers.Layer]],
) -> keras.Model:
    new = copy_model(model, layer_class=layer_class)
    pairs = list(zip(walk(model), walk(new), strict=True))
    for (_, old_layer), (_, new_layer) in pairs:
        # Parents come first, so a child's own setting is the last one written.
        new_layer.trainable = old_layer.trainable
        _copy_variables(old_layer, new_layer)
    if model.compiled:
        _compile_alike(model, new)
    return new


def _copy_variables(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    if isinstance(old, Masked):
        old.zero_pruned()
    for variables in ("_trainable_variables", "_non_trainable_variables"):
        # The masks are the last of a layer's variables: a plain layer has none to give
        # or take.
        for source, target in zip(
            getattr(old, variables), getattr(new, variables), strict=False
        ):
            # A copy: JAX would train the two models in one buffer.
            target.assign(read(source))
    finalize(new)
    for source, target in zip(old._seed_generators, new._seed_generators, strict=True):
        target.state.assign(read(source.state))


def _compile_alike(model: keras.Model, new: keras.Model) -> None:
    """Compiles `new` like `model`: same loss and metrics, a fresh optimizer."""
    config = dict(model._compile_config.config)
    config["optimizer"] = fresh_optimizer(model.optimizer)
    config["metrics"] = _fresh_metrics(config["metrics"])
    config["weighted_metrics"] = _fresh_metrics(config["weighted_metrics"])
    new.compile(**config)


def fresh_optimizer(optimizer: keras.optimizers.Optimizer) -> Any:
    """An optimizer with the same settings and no slots yet."""
    schedule = getattr(optimizer, "_learning_rate", None)
    # A schedule of the user's need not be registered with Keras.
    with keras.saving.custom_object_scope({type(schedule).__name__: type(schedule)}):
        return type(optimizer).from_config(optimizer.get_config())


def _fresh_metrics(metrics: Any) -> Any:
    """Metrics hold state: a new object for each, names and functions as they are."""

    def fresh(metric: Any) -> Any:
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    return keras.tree.map_structure(fresh, metrics)
