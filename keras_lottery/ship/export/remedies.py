"""Names the layers that LiteRT cannot run, with remedies."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


# This is how the converter and the runtime name operations that LiteRT lacks. A path in
# a message may also contain the word "Flex".
_LACKING = r"[(:,] ?Flex([A-Z]\w+)\b(?!\.)|Custom ops: (\w+)"


@contextmanager
def remedies_named(model: keras.Model, path: Path) -> Iterator[None]:
    """Adds to an error of the converter or the runtime which layers may be its cause.

    Raises:
        ExportError: the error from inside, with the layers' names, types and remedies.
    """
    try:
        yield
    except ExportError as error:
        found = [
            f"layer '{path}' ({type(layer).__name__}): {remedy}"
            for path, layer in walk(model)
            if (remedy := _remedy(layer))
        ]
        if lacking := sorted(
            {"".join(name) for name in re.findall(_LACKING, str(error))} - {"Delegate"}
        ):
            raise ExportError(
                f"Nothing was written to '{path}': the model needs operations of "
                f"TensorFlow that LiteRT lacks ({', '.join(lacking)}). "
                f"{_named(found) or _otherwise(model)}."
            ) from error
        if not found or "failed:" not in str(error):
            raise
        raise ExportError(
            f"LiteRT may lack what these layers need. {'; '.join(found)}. {error}"
        ) from error


def _named(found: list[str]) -> str:
    return f"What may need them: {'; '.join(found)}" if found else ""


def _otherwise(model: keras.Model) -> str:
    """The remedy if no layer is known to be the cause."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if any(size is None for shape in shapes for size in shape[1:]):
        return (
            f"Its inputs leave sizes open: {shapes}. Fix them: `inputs = "
            "keras.Input((128,), dtype=...)`, `keras.Model(inputs, model(inputs))`"
        )
    return "Replace the layers that use them, or write a SavedModel"


def check_calibration(model: keras.Model) -> None:
    """Raises ExportError for layers whose calibration would crash the process."""
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
        return "apply it to the data outside the model"
    if _loops(layer):
        return "make it with `unroll=True`, for inputs of a fixed length"
    if "float64" in (layer.compute_dtype, layer.variable_dtype):
        return "build it in float32"
    return ""
