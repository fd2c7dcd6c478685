"""Converts models of TFMOT (tensorflow-model-optimization) to masked Keras 3 models."""

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_lottery.interop import tf_keras as legacy
from keras_lottery.keras_bridge.internals.layers import own_variables
from keras_lottery.keras_bridge.layers import (
    get_masks,
    mask_model,
    named_variables,
    set_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.convert import masked_by_default
from keras_lottery.keras_bridge.layers.state import read

__all__ = ["from_tfmot"]

_SWITCH = "TF_USE_LEGACY_KERAS"
_UNKNOWN_SIZE = 32
# The share of the largest output by which two outputs may differ.
_TOLERANCE = 1e-4
_HALF_TOLERANCE = 2e-2


def import_tfmot() -> ModuleType:
    """Imports TFMOT without a side effect on `tf.keras`.

    `import tensorflow_model_optimization` sets `TF_USE_LEGACY_KERAS=1` for this process
    and those that it starts, which turns `tf.keras` into Keras 2. This function
    restores the variable, and `tf.keras` stays what it is. Use `tf_keras` to build
    models for TFMOT.

    Raises:
        ImportError: if TFMOT is not installed.
    """
    before = os.environ.get(_SWITCH)
    try:
        import tensorflow as tf

        # TensorFlow decides which Keras `tf.keras` is at its first use.
        dir(tf.keras)
        import tensorflow_model_optimization
    except ImportError as error:
        raise ImportError(
            "TFMOT is not installed, or incompletely. "
            'Install it: pip install "keras_lottery[tfmot]"'
        ) from error
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
    return tensorflow_model_optimization


def from_tfmot(
    model: Any, custom_objects: Mapping[str, Any] | None = None, x: Any = None
) -> keras.Model:
    """Returns a masked Keras 3 model with a TFMOT model's weights, masks and outputs.

    If the model still has its `PruneLowMagnitude` wrappers, the masks are theirs, and
    only the wrapped layers become masked layers. A model without wrappers (after
    `strip_pruning`) has no masks any more: every layer that `mask_model` masks gets
    one, and so do embeddings that contain zeros; *zeros count as pruned*. It makes no
    difference how the masks were made (blocks, m by n, a policy). Before the new model
    is returned, the outputs of both models on the same inputs are compared.

    Args:
        model: a built Sequential or Functional model of `tf_keras`, compiled or not;
            nested models and shared layers may occur. It is left as it is, except that
            TFMOT itself sets pruned weights to zero when a model is called.
        custom_objects: Keras 3 classes (of layers, initializers, …) and functions by
            their names in the tf_keras model. A custom layer's weights are copied in
            the order in which its `build` adds them.
        x: inputs on which to compare the outputs; by default one random batch of two
            rows, with 32 for unknown sizes.

    Returns:
        A masked Keras 3 model, not compiled.

    Raises:
        ImportError: if tf_keras is not installed.
        ValueError: if `model` is no model of tf_keras, or a layer or a mask cannot be
            converted; the error names it.
        RuntimeError: if the outputs differ; the error says by how much.

    Example::

        pruned = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        pruned.compile(...)
        pruned.fit(..., callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
        masked = keras_lottery.interop.tfmot.from_tfmot(pruned)
    """
    _check(model)
    custom = dict(custom_objects or {})
    plain, pairs = legacy.convert(model, custom)
    masks = _masks(model)
    names = {id(v): name for name, v in named_variables(plain).items()}
    found = {names[id(new)]: masks[id(old)] for old, new in pairs if id(old) in masks}
    # Keras looks up names in a layer's config by their names in Keras 3.
    with keras.saving.custom_object_scope({c.__name__: c for c in custom.values()}):
        masked = _mask(plain, found)
    _compare(model, masked, x)
    return masked


def _check(model: Any) -> None:
    if isinstance(model, keras.Model):
        raise ValueError(
            f"Expected a tf_keras model. Received: '{model.name}', a Keras 3 model. "
            "TFMOT cannot prune it, keras_lottery can: call `mask_model(model)`."
        )
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError(
            'tf_keras is not installed. Install it: pip install "keras_lottery[tfmot]"'
        ) from error
    if not isinstance(model, tf_keras.Model):
        raise ValueError(f"Expected a tf_keras model. Received: model={model!r}")
    if not legacy.has_graph(model):
        raise ValueError(
            "Expected a built Sequential or Functional model. Received: "
            f"'{model.name}' of class {type(model).__name__}, built={model.built}."
        )


def _masks(model: Any) -> dict[int, np.ndarray]:
    """The masks of the model's wrappers, by the id of the tf_keras weight."""
    return {
        id(weight): np.asarray(mask) != 0
        for layer in legacy.walk(model)
        if type(layer).__name__ == legacy.WRAPPER
        for weight, mask, _ in layer.pruning_vars
    }


def _mask(plain: keras.Model, found: dict[str, np.ndarray]) -> keras.Model:
    """Masks a model with the masks found, or, if there are none, where it is zero."""
    if not found:
        masked = mask_model(
            plain, lambda layer: masked_by_default(layer) or _has_zeros(layer)
        )
        values = named_variables(masked)
        zeros = {name: read(values[name]) != 0 for name in get_masks(masked)}
        set_masks(masked, zeros)
        return masked
    variables = named_variables(plain)
    wanted = {id(variables[name]) for name in found}
    masked = mask_model(
        plain, lambda layer: any(id(v) in wanted for v in own_variables(layer))
    )
    masks = get_masks(masked)
    lost = [name for name in found if name not in masks and not found[name].all()]
    if lost:
        raise ValueError(
            f"These weights have a TFMOT mask and no masked Keras 3 layer: {lost}. "
            "To keep their zeros as ordinary weights, which training may change, "
            "call `strip_pruning` first."
        )
    set_masks(masked, {name: found.get(name, masks[name]) for name in masks})
    return masked


def _has_zeros(layer: keras.layers.Layer) -> bool:
    return any(not read(variable).all() for variable in own_variables(layer))


def _compare(model: Any, masked: keras.Model, x: Any) -> None:
    """Raises RuntimeError unless both models give the same outputs."""
    if x is None:
        x = keras.tree.map_structure(_draw, legacy.input_structure(model))
    outputs = [
        [np.asarray(y, np.float64) for y in keras.tree.flatten(m(x, training=False))]
        for m in (model, masked)
    ]
    half = any("16" in layer.compute_dtype for _, layer in walk(masked))
    tolerance = _HALF_TOLERANCE if half else _TOLERANCE
    for i, (old, new) in enumerate(zip(*outputs, strict=True)):
        largest = float(np.abs(old - new).max(initial=0))
        if not largest <= tolerance * max(1, np.abs(old).max(initial=0)):
            raise RuntimeError(
                f"Output {i} of '{model.name}' differs by {largest:.3g} from that of "
                f"the Keras 3 model (outputs reach {np.abs(old).max():.3g}; expected "
                f"less than {tolerance:g} of it). A layer of `custom_objects` may "
                "compute something else, or add its weights in another order."
            )


def _draw(tensor: Any) -> np.ndarray:
    """A random batch of two rows for a symbolic input."""
    rng = np.random.default_rng(0)
    shape = [size or _UNKNOWN_SIZE for size in tensor.shape]
    shape[0] = tensor.shape[0] or 2
    if tensor.dtype.is_integer or tensor.dtype.is_bool:
        return rng.integers(0, 2, shape).astype(tensor.dtype.as_numpy_dtype)
    # Values between -1 and 1 become index 0 where integers are expected.
    return rng.uniform(-1, 1, shape).astype(tensor.dtype.as_numpy_dtype)
