"""What to do about layers that LiteRT cannot run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers

from keras_lottery.keras_bridge.layers import walk
from keras_lottery.ship.export.errors import ExportError

_LOOKUPS = (
    layers.HashedCrossing,
    layers.Hashing,
    layers.IntegerLookup,
    layers.StringLookup,
    layers.TextVectorization,
)


@contextmanager
def remedies_named(model: keras.Model) -> Iterator[None]:
    """Adds to an error of the converter or the runtime which layers may be its cause.

    Raises:
        ExportError: as inside, with the layers' names, types and remedies.
    """
    try:
        yield
    except ExportError as error:
        found = [
            f"layer '{path}' ({type(layer).__name__}): {remedy}"
            for path, layer in walk(model)
            if (remedy := _remedy(layer))
        ]
        if not found or "failed:" not in str(error):
            raise
        raise ExportError(
            f"LiteRT may lack what these layers need. {'; '.join(found)}. {error}"
        ) from error


def check_calibration(model: keras.Model) -> None:
    """Raises ExportError for layers whose calibration would end the process."""
    for path, layer in walk(model):
        if _loops(layer) and getattr(layer, "stateful", False):
            raise ExportError(
                f"Layer '{path}' ({type(layer).__name__}) keeps its state from batch "
                'to batch, in a loop that LiteRT cannot calibrate for "int8". Make it '
                "with `unroll=True`."
            )


def _loops(layer: Any) -> bool:
    return isinstance(layer, layers.RNN) and not layer.unroll


def _remedy(layer: Any) -> str:
    if isinstance(layer, _LOOKUPS):
        return "apply it to the data outside of the model"
    if _loops(layer):
        return "make it with `unroll=True`, for inputs of a fixed length"
    if "float64" in (layer.compute_dtype, layer.variable_dtype):
        return "build it in float32"
    return ""
