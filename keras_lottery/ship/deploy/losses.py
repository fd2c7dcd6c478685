"""Compiles a model that was not compiled, with a loss that fits its outputs."""

from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.ship.deploy.material import Material

RATE = 1e-3

WITH_LOGITS = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
}
"""Losses of probabilities or of logits; given by name, Keras assumes probabilities."""


def compiled(model: keras.Model, loss: Any, parts: Material) -> keras.Model:
    """The model, or a copy compiled with a loss, if there is something to train.

    The model's outputs show whether a cross-entropy has to take logits.

    Raises:
        ValueError: if the model needs a loss and has none, or the loss is unknown.
    """
    if loss is None:
        if not model.compiled and parts.train is not None:
            remedy = (
                "Compile it before it is saved, or pass the `loss` to train by, such "
                "as 'sparse_categorical_crossentropy' or 'mse'."
            )
            checks.refuse(
                "model", "a compiled one, to be fine-tuned", model.name, remedy
            )
        return model
    if not keras.tree.flatten(loss):
        checks.refuse("loss", "a loss, or losses by output", loss)
    known = keras.tree.map_structure(_known, loss)
    if parts.train is not None and isinstance(known, str):
        known = _of_logits(known, model, parts.train[0])
    copy = duplicate(model)
    metrics = ["accuracy"] if _classifies(known) and len(model.outputs) == 1 else None
    copy.compile(keras.optimizers.Adam(RATE), known, metrics=metrics)
    return copy


def _known(loss: Any) -> Any:
    if not isinstance(loss, str):
        return checks.function("loss", loss, "the name of a loss of Keras, or a loss")
    try:
        keras.losses.get(loss)
    except ValueError:
        names = [n for n in dir(keras.losses) if n.islower() and n[0] != "_"]
        names = [n for n in names if n not in ("get", "serialize", "deserialize")]
        checks.choice("loss", loss, names)
    return loss


def _of_logits(loss: str, model: keras.Model, x: Any) -> Any:
    if loss not in WITH_LOGITS:
        return loss
    some = keras.tree.map_structure(lambda array: array[:32], x)
    try:
        outputs = np.asarray(keras.ops.convert_to_numpy(model(some, training=False)))
    except Exception:  # The check of the data reports the error.
        return loss
    shares = bool((outputs >= 0).all() and (outputs <= 1).all())
    if not loss.startswith("binary"):
        shares = shares and np.allclose(outputs.sum(-1), 1, atol=1e-3)
    return WITH_LOGITS[loss](from_logits=not shares)


def _classifies(loss: Any) -> bool:
    name = loss if isinstance(loss, str) else type(loss).__name__
    return "crossentropy" in name.lower().replace("_", "")
