"""Drawing of new initial weights from a model's own initialisers."""

from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.keras_bridge.layers.copying import copy_model
from keras_lottery.keras_bridge.layers.names import named_variables, walk
from keras_lottery.keras_bridge.layers.state import get_state


def redraw(model: keras.Model, seed: int) -> dict[str, np.ndarray]:
    """Draws the state of a freshly built model of the same architecture.

    Seeds that were given to initialisers or to layers are ignored, since every draw
    would be the same with them. Frozen layers and layers adapted to data keep their
    values.

    Args:
        model: a built model; it is left untouched.
        seed: the seed of the draw; the same seed draws the same state.

    Returns:
        Mapping of variable name to array, like that of `get_state(model)`.
    """
    checks.model("model", model)
    kept = {
        id(variable)
        for _, layer in walk(model)
        if not layer.trainable or hasattr(layer, "finalize_state")
        for variable in layer.variables
    }
    with seeded(seed):
        state = get_state(copy_model(model, configure=_without_seeds))
    own = get_state(model)
    return {
        name: own[name] if id(variable) in kept else state[name]
        for name, variable in named_variables(model).items()
    }


def _without_seeds(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: None if key == "seed" else _without_seeds(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_without_seeds(value) for value in config)
    return config
