"""Stable names for a model's layers and variables.

Keras numbers unnamed layers by a counter of the process: a `Dense` is `dense` in the
first model and `dense_7` in the next. A name here is a path of the layers' names in
which unnamed layers are numbered within their parent instead, so that every build of a
model gives the same names. (A name that looks like one of Keras's, such as `dense_3`,
is treated as automatic even if the user gave it, because the two cannot be told apart.)
"""

import re
from collections.abc import Iterator

import keras

from keras_lottery.keras_bridge.internals.layers import (
    children,
    own_variables,
    random_generators,
)
from keras_lottery.keras_bridge.layers.masked import Masked

# The name that Keras gives to a variable without one, by a counter of the process.
_AUTOMATIC = re.compile(r"^variable_\d+$")


def walk(model: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields (path, layer) for every layer inside a model, depth first.

    A layer that is used in several places is yielded once, under its first path.
    """
    yield from _walk(model, "", set())


def _walk(
    parent: keras.layers.Layer, prefix: str, seen: set[int]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    for name, layer in named_children(parent):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield prefix + name, layer
            yield from _walk(layer, f"{prefix}{name}/", seen)


def named_children(
    parent: keras.layers.Layer,
) -> list[tuple[str, keras.layers.Layer]]:
    """Returns the layers directly inside another one, with their stable names."""
    inside = children(parent)
    return list(zip(stable_names(inside), inside, strict=True))


def stable_names(layers: list[keras.layers.Layer]) -> list[str]:
    """Returns the names of sibling layers, with automatic names numbered from zero."""
    stems = [_automatic_stem(layer) for layer in layers]
    taken = {
        layer.name for layer, stem in zip(layers, stems, strict=True) if stem is None
    }
    names = []
    for layer, stem in zip(layers, stems, strict=True):
        name, number = stem or layer.name, 0
        while stem and name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        names.append(name)
    return names


def _automatic_stem(layer: keras.layers.Layer) -> str | None:
    """Returns `"dense"` for a layer named `dense` or `dense_7` by Keras, else None."""
    stem = re.sub(r"_\d+$", "", layer.name)
    # A layer keeps its name when it is masked or stripped.
    kind = type(layer).__name__.lower().removeprefix("masked")
    # Bidirectional derives the last two names from the layer that it wraps.
    automatic = [kind, f"masked{kind}", f"forward{kind}", f"backward{kind}"]
    if isinstance(layer, keras.layers.InputLayer):
        automatic.append("kerastensor")
    return stem if stem.replace("_", "") in automatic else None


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns every variable of a model except the masks, by stable name.

    These are all variables that training can change: weights, statistics of
    normalisation and the states of random generators.
    """
    variables: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    for path, layer in [("", model), *walk(model)]:
        masks = {id(mask) for mask, _ in _masks_of(layer)}
        states = [generator.state for generator in random_generators(layer)]
        for variable in [*own_variables(layer), *states]:
            if id(variable) in seen or id(variable) in masks:
                continue
            seen.add(id(variable))
            own = _AUTOMATIC.sub("variable", variable.name)
            stem = name = f"{path}/{own}" if path else own
            number = 0
            while name in variables:
                number += 1
                name = f"{stem}_{number}"
            variables[name] = variable
    return variables


def named_masks(model: keras.Model) -> dict[str, tuple[keras.Variable, keras.Variable]]:
    """Returns (mask, weight) variables of a masked model, by the weight's name."""
    weights = {id(variable): name for name, variable in named_variables(model).items()}
    return {
        weights[id(weight)]: (mask, weight)
        for _, layer in walk(model)
        for mask, weight in _masks_of(layer)
    }


def _masks_of(
    layer: keras.layers.Layer,
) -> list[tuple[keras.Variable, keras.Variable]]:
    if not isinstance(layer, Masked) or not layer.built:
        return []
    return [
        (layer.mask_variable(name), layer.weight_variable(name))
        for name in layer.masked_weights
    ]
