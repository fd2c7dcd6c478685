"""Functions that read and write a model's masks and the state of its variables."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.keras_bridge import backends, checks
from keras_lottery.keras_bridge.internals.optimizers import (
    slots,
    warn_of_sparse_kernels,
)
from keras_lottery.keras_bridge.layers.masked import Masked
from keras_lottery.keras_bridge.layers.names import named_masks, named_variables, walk
from keras_lottery.masks import Masks
from keras_lottery.tables import text_table

State = Mapping[str, np.ndarray]
"""The values of a model's variables by stable name: weights, statistics, seeds."""


def read(variable: keras.Variable) -> np.ndarray:
    """Returns a copy of a variable's value as an array."""
    return backends.current().array(variable)


def get_masks(model: keras.Model) -> Masks:
    """Returns the masks of a masked model, by weight name.

    Example:

    >>> from keras_lottery.keras_bridge.layers import MaskedDense
    >>> model = keras.Sequential([keras.Input((4,)), MaskedDense(3, name="hidden")])
    >>> get_masks(model)["hidden/kernel"].shape
    (4, 3)
    """
    _sync(checks.any_model("model", model))
    return Masks({name: read(mask) for name, (mask, _) in _masks_of(model).items()})


def trained_masks(model: keras.Model) -> Masks:
    """Returns the masks of trainable weights, without those of frozen layers.

    Raises:
        ValueError: if the model is not masked, or all of its masked layers are frozen.
    """
    masks = get_masks(model)
    trained = {id(variable) for variable in model.trainable_variables}
    weights = {name: weight for name, (_, weight) in named_masks(model).items()}
    names = [name for name, weight in weights.items() if id(weight) in trained]
    if not names:
        raise ValueError(
            f"Model '{model.name}' has no masked layers to train: all of them are "
            "frozen. Set `layer.trainable = True`, and compile it."
        )
    return Masks({name: masks[name] for name in names})


def set_masks(
    model: keras.Model, masks: Mapping[str, np.ndarray], optimizer: Any = None
) -> None:
    """Sets the masks of a masked model, and sets the pruned weights to zero.

    The optimizer's slots are reset where weights are pruned, since momentum would move
    these weights again.

    Args:
        model: a masked model.
        masks: mapping of every masked weight's name to a boolean array of its shape.
        optimizer: the optimizer that trains the model, if it is not `model.optimizer`
            (in a training loop of your own).

    Raises:
        ValueError: if names or shapes differ from those of the model.
    """
    if not isinstance(masks, Masks):
        checks.instance("masks", masks, Mapping, "boolean arrays by weight name")
        masks = Masks(masks)
    variables = _masks_of(model)
    if optimizer is not None:
        form = "an optimizer of Keras"
        checks.instance("optimizer", optimizer, keras.Optimizer, form)
    if masks.keys() != variables.keys():
        raise ValueError(
            f"Expected `masks` for {sorted(variables)}. "
            f"Missing: {sorted(variables.keys() - masks.keys())}. "
            f"Unknown: {sorted(masks.keys() - variables.keys())}."
        )
    for name, (mask, _) in variables.items():
        if masks[name].shape != tuple(mask.shape):
            raise ValueError(
                f"Expected a mask of shape {tuple(mask.shape)} for `{name}`. "
                f"Received: shape {masks[name].shape}."
            )
    _sync(model)
    for name, (mask, _) in variables.items():
        mask.assign(np.array(masks[name]))
    for _, layer in walk(model):
        if isinstance(layer, Masked):
            layer.zero_pruned()
    optimizer = optimizer or getattr(model, "optimizer", None)
    if masks.sparsity:
        warn_of_sparse_kernels(optimizer)
    reset_slots(variables, optimizer)


def get_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns copies of all variables but masks, by name; pruned weights are zero."""
    checks.model("model", model)
    _sync(model)
    state = {name: read(variable) for name, variable in named_variables(model).items()}
    for name, (mask, _) in named_masks(model).items():
        state[name][~read(mask)] = 0
    return state


def set_state(
    model: keras.Model, state: State, masks: Mapping[str, np.ndarray] | None = None
) -> None:
    """Sets all variables of a model except masks; pruned weights become zero.

    Args:
        model: a model.
        state: what `get_state` returned for a model with the same variables.
        masks: masks to set first. Without them, the weights that the model's own masks
            prune are lost.

    Raises:
        ValueError: if names differ from those of the model.
    """
    variables = named_variables(checks.model("model", model))
    checks.state("state", state)
    if state.keys() != variables.keys():
        raise ValueError(
            "Expected `state` to be that of a model with the same variables. "
            f"Missing: {sorted(variables.keys() - state.keys())}. "
            f"Unknown: {sorted(state.keys() - variables.keys())}."
        )
    if masks is not None:
        set_masks(model, masks)
    for name, variable in variables.items():
        # Copied, because JAX may train in the buffer of the array that it receives.
        variable.assign(np.array(state[name]))
    for _, layer in walk(model):
        finalize(layer)
        if isinstance(layer, Masked):
            layer.zero_pruned()


def finalize(layer: keras.layers.Layer) -> None:
    """Makes a Normalization that was adapted to data use its variables' values."""
    # Other layers (Discretization) would recompute theirs from data that are not kept.
    if isinstance(layer, keras.layers.Normalization) and layer.built:
        layer.finalize_state()


def get_sparsity(model: keras.Model) -> float:
    """Returns the share of a masked model's prunable weights that are pruned.

    >>> from keras_lottery.keras_bridge.layers import MaskedDense
    >>> get_sparsity(keras.Sequential([keras.Input((4,)), MaskedDense(3)]))
    0.0
    """
    return get_masks(model).sparsity


def sparsity_summary(model: keras.Model) -> str:
    """Returns a table of the weights that are left in each layer.

    Example:

    >>> from keras_lottery.keras_bridge.layers import MaskedDense
    >>> model = keras.Sequential([keras.Input((4,)), MaskedDense(3, name="hidden")])
    >>> print(sparsity_summary(model))
    weight         kept  size  density
    hidden/kernel    12    12  100.00%
    total            12    12  100.00%
    """
    masks = get_masks(model)
    counts = [
        (name, int(np.count_nonzero(mask)), mask.size) for name, mask in masks.items()
    ]
    counts.append(("total", masks.kept, masks.size))
    rows = [
        [name, f"{kept:,}", f"{size:,}", f"{kept / size:.2%}"]
        for name, kept, size in counts
    ]
    return text_table(rows, ["weight", "kept", "size", "density"])


def _masks_of(model: keras.Model) -> dict[str, tuple[keras.Variable, keras.Variable]]:
    variables = named_masks(checks.any_model("model", model))
    if not variables:
        raise ValueError(
            f"Expected a masked model. Received: model '{model.name}', which has no "
            "masked layer. Call `mask_model(model)` and use the model it returns."
        )
    return variables


def _sync(model: keras.Model) -> None:
    """Updates a JAX model's variables, whose state `fit` keeps elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def reset_slots(variables: Mapping[str, tuple[Any, Any]], optimizer: Any) -> None:
    """Resets the optimizer's slots of pruned weights to their initial values.

    The argument `variables` holds (mask, weight) pairs, by name.
    """
    masks = {id(weight): mask for mask, weight in variables.values()}
    for weight, slot, start in slots(optimizer):
        if id(weight) in masks and slot.shape == weight.shape:
            mask = ops.convert_to_tensor(masks[id(weight)])
            value = ops.convert_to_tensor(slot)
            slot.assign(ops.where(mask, value, ops.cast(start, slot.dtype)))
