"""Makes the models to export: as given, as a plain copy, and as a dense twin."""

from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.layers import strip_masks, walk
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.tickets import Ticket

LOW_PRECISION = ("bfloat16", "float16")


def keras_model(ticket_or_model: Any) -> keras.Model:
    """The given model, or the trained model of a ticket, with symbolic inputs."""
    if isinstance(ticket_or_model, Ticket):
        return _with_inputs(ticket_or_model.trained_model())
    if not isinstance(ticket_or_model, keras.Model):
        raise ValueError(
            "Expected `ticket_or_model` to be a Ticket or a Keras model. Received: "
            f"ticket_or_model={ticket_or_model!r}. Load a saved ticket with "
            "`keras_lottery.load_ticket(path)`."
        )
    return _with_inputs(checks.model("ticket_or_model", ticket_or_model))


def check_dense(dense: Any) -> None:
    """Raises ValueError unless `dense` is a model to compare with, or None."""
    if dense is not None:
        checks.model("dense", dense)


def _with_inputs(model: keras.Model) -> keras.Model:
    """Wraps a subclassed model in a Functional one; returns others as they are."""
    if not model.built or getattr(model, "inputs", None):
        return model
    config = model.get_build_config() or {}
    shapes = config.get("shapes_dict") or {"": config.get("input_shape")}
    try:
        (shape,) = shapes.values()
        inputs = keras.Input(tuple(shape)[1:], name="input_0")
        return keras.Model(inputs, model(inputs), name=model.name)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The inputs of the subclassed model '{model.name}' are not known: it was "
            f"built with {config}. Export `keras.Model(inputs, model(inputs))`, with a "
            "`keras.Input` for each."
        ) from error


def plain_copy(model: keras.Model) -> keras.Model:
    """A copy of ordinary layers with the zeros baked in and a fresh optimizer."""
    plain = strip_masks(model)
    for variable in _kernels(plain):
        # A mask times a negative weight is -0.0. Two kinds of zero would nearly double
        # the size after gzip; adding 0.0 makes both 0.0.
        variable.assign(read(variable) + 0.0)
    return plain


def unpruned(model: keras.Model) -> keras.Model:
    """A copy in which random values replace the zeros of the kernels."""
    twin = strip_masks(model)
    rng = np.random.default_rng(0)
    for variable in _kernels(twin):
        values = read(variable)
        zeros = values == 0
        values[zeros] = rng.normal(0, values.std() or 1.0, np.count_nonzero(zeros))
        variable.assign(values)
    return twin


def sparsity(model: keras.Model) -> float:
    """The share of zeros in the kernels."""
    kernels = [read(variable) for variable in _kernels(model)]
    size = sum(kernel.size for kernel in kernels)
    left = sum(int(np.count_nonzero(kernel)) for kernel in kernels)
    return 1 - left / size if size else 0.0


def precision(model: keras.Model) -> str:
    """The least precise type in which a layer computes."""
    types = {layer.compute_dtype for _, layer in walk(model)}
    return next((low for low in LOW_PRECISION if low in types), "float32")


def compute_in_float32(model: keras.Model) -> None:
    """Makes every layer of a mixed-precision model compute in float32."""
    for layer in [model, *(layer for _, layer in walk(model))]:
        if layer.compute_dtype in LOW_PRECISION:
            layer.dtype_policy = "float32"


def _kernels(model: keras.Model) -> list[keras.Variable]:
    return [
        variable
        for variable in model.weights
        if len(variable.shape) > 1 and "float" in variable.dtype
    ]
