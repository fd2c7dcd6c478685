"""Evaluates a model's loss and metrics."""

from typing import Any

import keras

from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.datasets import is_dataset
from keras_lottery.keras_bridge.layers.recurrent import (
    at_rest,
    batch_size_of,
)

EVALUATION_BATCH = 1000


def evaluate(model: keras.Model, data: Any) -> dict[str, float]:
    """The model's loss and metrics on data, by `model.evaluate`.

    Recurrent states start at rest, and are restored afterwards.
    """
    data = ready(model, data)
    given: dict[str, Any] = {"x": data}
    if not is_dataset(data):
        x, y, sample_weight = (*data, None)[:3]
        given = {"x": x, "y": y, "sample_weight": sample_weight}
        given["batch_size"] = evaluation_batch(model)
    # On torch, Keras's loader draws a random number, although nothing is shuffled.
    with at_rest(model), backends.current().seeded(0):
        return model.evaluate(**given, verbose=0, return_dict=True)


def ready(model: keras.Model, data: Any) -> Any:
    """Data in the form that the backend evaluates fastest."""
    if is_dataset(data):
        return data
    return backends.current().ready(data, evaluation_batch(model))


def evaluation_batch(model: keras.Model) -> int:
    """How many examples are evaluated at once: the model's batch size, if fixed."""
    return batch_size_of(model) or EVALUATION_BATCH
