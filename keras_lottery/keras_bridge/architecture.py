"""A model's architecture as text, without weights."""

import json
import warnings

import keras

from keras_lottery.keras_bridge.internals.randomness import undrawn
from keras_lottery.keras_bridge.internals.versions import without_newer_settings
from keras_lottery.keras_bridge.layers.assets import has_assets
from keras_lottery.keras_bridge.layers.names import walk


def to_text(model: keras.Model) -> str:
    """Returns the model's layers and compilation as text that Keras serialises.

    Raises:
        ValueError: if a layer was adapted to a vocabulary that its config does not
            contain.
    """
    for path, layer in walk(model):
        if has_assets(layer):
            raise ValueError(
                f"Layer '{path}' ({type(layer).__name__}) has a vocabulary, or saves "
                "something else beside its variables, that is not in its config: a "
                "model made from the config would lack it. Give the layer its "
                "vocabulary when you create it, such as `StringLookup(vocabulary="
                "adapted.get_vocabulary())`, or apply it to the data outside the model."
            )
    return json.dumps(keras.saving.serialize_keras_object(model))


def from_text(text: str) -> keras.Model:
    """Returns the model of a text, with new weights.

    If a custom loss or metric is not registered with Keras, the model is returned
    uncompiled, with a warning.

    Raises:
        TypeError: if a custom layer is not registered with Keras.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> from_text(to_text(model)).count_params()
    15
    """
    config = without_newer_settings(json.loads(text))
    compiled = config.pop("compile_config", None)
    with undrawn():
        model = keras.saving.deserialize_keras_object(config)
    if compiled:
        if keras.backend.backend() == "torch":
            compiled["steps_per_execution"] = 1  # Keras accepts no other value there.
            # Torch would need a C++ compiler for what XLA compiles on other backends.
            compiled["jit_compile"] = "auto"
        try:
            model.compile_from_config(compiled)
        except (TypeError, ValueError) as error:
            warnings.warn(
                "The model is not compiled, since Keras does not know its loss, "
                "metrics or optimizer. Compile it, or load it within "
                f"`keras.saving.custom_object_scope`. Keras says: {error}",
                stacklevel=2,
            )
    return model
