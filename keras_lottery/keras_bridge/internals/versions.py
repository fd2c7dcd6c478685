"""Features that some versions of Keras lack, looked up only here.

The lowest supported version is 3.12, the last one for Python 3.10, which still gets
fixes. Earlier versions were not tried. `.ci/matrix` runs the tests on the lowest and
the newest version.
"""

import importlib
import importlib.util
import inspect
from typing import Any

import keras

ADAPTIVE_POOLING: tuple[type[keras.layers.Layer], ...] = tuple(
    getattr(keras.layers, f"Adaptive{kind}Pooling{rank}D")
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
    if hasattr(keras.layers, f"Adaptive{kind}Pooling{rank}D")
)
"""The adaptive pooling layers, which came with Keras 3.13."""

EXPORTS_LITERT = importlib.util.find_spec("keras.src.export.litert") is not None
"""Whether `model.export(format="litert")` exists, which came with Keras 3.13."""

NEWER_SETTINGS = {"quantization_config", "input_axes", "output_axes"}.difference(
    inspect.signature(keras.layers.Dense).parameters,
    inspect.signature(keras.initializers.GlorotNormal).parameters,
)
"""The settings of layers and initialisers in newer versions that this one rejects."""


def tensorflow_nn() -> Any:
    """Returns Keras's `nn` module on TensorFlow, which Keras 3.16 moves."""
    # Looked up when it is needed, because even looking it up imports TensorFlow.
    package = "keras.src.backend.tensorflow"
    moved = importlib.util.find_spec(f"{package}.nn") is None
    return importlib.import_module(f"{package}.ops.nn" if moved else f"{package}.nn")


def without_newer_settings(config: Any) -> Any:
    """Returns a model's config without newer settings that have no value."""
    if isinstance(config, dict):
        return {
            key: without_newer_settings(value)
            for key, value in config.items()
            if value is not None or key not in NEWER_SETTINGS
        }
    if isinstance(config, list):
        return [without_newer_settings(value) for value in config]
    return config
