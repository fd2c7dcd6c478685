"""What some versions of Keras lack: looked up here once, and nowhere else.

The lowest version is 3.12: the last one for Python 3.10, which Keras still mends.
Earlier ones were not tried. `.ci/matrix` runs the tests on the lowest and the newest.
"""

import importlib.util

import keras

ADAPTIVE_POOLING: tuple[type[keras.layers.Layer], ...] = tuple(
    getattr(keras.layers, f"Adaptive{kind}Pooling{rank}D")
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
    if hasattr(keras.layers, f"Adaptive{kind}Pooling{rank}D")
)
"""The adaptive pooling layers, which came with Keras 3.13."""

EXPORTS_LITERT = importlib.util.find_spec("keras.src.export.litert") is not None
"""Whether `model.export(format="litert")` is there, which came with Keras 3.13."""
