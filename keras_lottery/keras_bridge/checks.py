"""Checkers of models, states, masks and tables, same in form as `checks`."""

import contextlib
from collections.abc import Iterable, Mapping
from inspect import isclass
from typing import Any

import keras
import numpy as np

from keras_lottery.checks import choice, instance, refuse, text
from keras_lottery.keras_bridge.internals.graph import is_graph
from keras_lottery.keras_bridge.layers.names import walk
from keras_lottery.masks import Masks

STATE = "arrays by name, as `get_state` gives them"


def any_model(name: str, value: Any) -> keras.Model:
    """Checks a Keras model, built or not."""
    return instance(name, value, keras.Model, "a Keras model")


def model(name: str, value: Any) -> keras.Model:
    """Checks a Keras model that is built."""
    any_model(name, value)
    # If a subclass does not define `build`, calling it builds none of its layers.
    hollow = not value.weights and any(not layer.built for _, layer in walk(value))
    if not value.built or hollow or (is_graph(value) and not value.inputs):
        remedy = (
            "Start it with `keras.Input(shape)`, or call it once on data, as "
            "`model(x[:1])`."
        )
        refuse(name, "a built model, which has weights", value, remedy)
    return value


def compiled(name: str, value: Any) -> keras.Model:
    """Checks a Keras model that can be trained and evaluated."""
    if not model(name, value).compiled:
        remedy = "Call `model.compile(optimizer, loss, metrics=['accuracy'])` first."
        refuse(name, "a compiled Keras model", value, remedy)
    return value


def state(name: str, value: Any) -> Mapping[str, np.ndarray]:
    """Checks arrays by name, as `get_state` returns them."""
    instance(name, value, Mapping, STATE)
    if not all(isinstance(n, str) and hasattr(a, "dtype") for n, a in value.items()):
        refuse(name, STATE, value)
    return value


def masks(name: str, value: Any) -> Masks:
    """Checks masks by weight name."""
    return instance(name, value, Masks, "a `Masks`, as `get_masks` gives it")


def table(name: str, value: Any, form: str, columns: Iterable[str] = ()) -> Any:
    """Checks a pandas table that has these columns."""
    import pandas as pd

    instance(name, value, pd.DataFrame, form)
    if missing := [column for column in columns if column not in value]:
        remedy = f"It lacks {', '.join(missing)}."
        refuse(name, f"{form}, with its columns", list(value.columns), remedy)
    return value


def optimizer_name(name: str, value: Any) -> str:
    """Checks the name of an optimizer of Keras, or of one registered with Keras."""
    if keras.saving.get_registered_object(text(name, value)) is None:
        classes = [kind for kind in vars(keras.optimizers).values() if isclass(kind)]
        known = {c.__name__.lower() for c in classes if issubclass(c, keras.Optimizer)}
        choice(name, value.lower(), sorted(known - {"optimizer"}))
    return value


def optimizer(name: str, value: Any, config: Mapping[str, Any] = {}) -> Any:
    """Checks a Keras optimizer, or makes one from its name and a config."""
    if isinstance(value, keras.Optimizer):
        return value
    form = "the name of a Keras optimizer, such as 'adam', 'adamw', 'sgd', or an object"
    if isinstance(value, str) and value:
        with contextlib.suppress(ValueError):
            return keras.optimizers.get({"class_name": value, "config": dict(config)})
    refuse(name, form, value)
