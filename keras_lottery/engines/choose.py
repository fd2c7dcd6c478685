"""Which engine trains the tickets."""

from typing import Any

import keras

from keras_lottery.engines import fused
from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.fit import FitEngine
from keras_lottery.engines.fused import FusedEngine

ENGINES: dict[str, type[Engine]] = {"fit": FitEngine, "fused": FusedEngine}


def make(
    name: str, model: keras.Model, data: Data, steps: int, **arguments: Any
) -> Engine:
    """An engine by name.

    Args:
        name: `"fit"`: `model.fit`, for everything; `"fused"`: many steps in one
            compiled loop, the data on the device; `"vectorized"`: many tickets in one
            program, on JAX; `"auto"`: the fastest of them. Where the model or its data
            ask for more than an engine can do, a simpler one is made, and a warning
            says why.
        model, data, steps, arguments: as of `Engine`.

    Returns:
        The engine; its `name` is what was chosen. The name and the same arguments give
        the same engine again.

    Raises:
        ValueError: if there is no such engine, or as of `Engine`.
    """
    if name not in ("auto", *ENGINES):
        raise ValueError(
            f"Expected `engine` to be one of {['auto', *ENGINES]}. "
            f"Received: engine={name!r}"
        )
    reason = None if name == "fit" else fused.obstacle(model, data, **arguments)
    if reason and name != "auto":
        fused.fall_back(name, "fit", reason)
    if reason or name == "auto":
        name = "fit"
    elif name == "auto":
        name = "fused"
    return ENGINES[name](model, data, steps, **arguments)
