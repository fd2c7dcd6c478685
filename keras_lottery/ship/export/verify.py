"""Checks whether a file computes what its Keras model computes."""

from collections.abc import Mapping

import numpy as np

from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.signature import Arrays

# The largest allowed difference, as a share of the Keras model's largest output.
TOLERANCE: Mapping[str, float] = {
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 5e-2,
}

# With eight bits, single outputs may differ a lot where a decision is close. Therefore
# the criteria are the mean difference, and the share of rows in which the file's
# largest output is, within the margin, also the largest of the Keras model.
INT8_MEAN_TOLERANCE = 0.05
INT8_MARGIN = 0.1
INT8_AGREEMENT = 0.9


def check_finite(outputs: Arrays, whose: str) -> None:
    """Raises ExportError if an output is NaN or infinite."""
    for name, output in outputs.items():
        if not np.all(np.isfinite(output)):
            raise ExportError(f"{whose} returns NaN or infinite values in `{name}`")


def compare(expected: Arrays, actual: Arrays, precision: str) -> float:
    """The largest difference between the outputs of a file and of the Keras model.

    Args:
        expected: outputs of the Keras model, by name.
        actual: outputs of the file, by name.
        precision: the less precise of the types in which the two compute: `"int8"` or a
            key of `TOLERANCE`.

    Raises:
        ExportError: if outputs are missing, not finite, or differ too much.
    """
    if {name: a.shape for name, a in expected.items()} != {
        name: a.shape for name, a in actual.items()
    }:
        raise ExportError(
            f"the file returns {_shapes(actual)} where the Keras model returns "
            f"{_shapes(expected)}"
        )
    check_finite(actual, "the file")
    return max(
        _compare(name, output.astype(float), actual[name].astype(float), precision)
        for name, output in expected.items()
    )


def _compare(
    name: str, expected: np.ndarray, actual: np.ndarray, precision: str
) -> float:
    difference = np.abs(actual - expected)
    largest = float(difference.max())
    scale = float(np.abs(expected).max())
    if precision == "int8":
        if difference.mean() > INT8_MEAN_TOLERANCE * scale + 1e-6:
            raise ExportError(
                f"the file's `{name}` differs from the Keras model's by "
                f"{difference.mean():.2g} on average, outputs being up to {scale:.2g}"
            )
        agreement = _agreement(expected, actual, INT8_MARGIN * scale)
        if agreement < INT8_AGREEMENT:
            raise ExportError(
                f"the file's `{name}` decides like the Keras model's in only "
                f"{agreement:.1%} of the rows"
            )
    elif largest > TOLERANCE[precision] * scale + 1e-6:
        raise ExportError(
            f"the file's `{name}` differs from the Keras model's by {largest:.2g}, "
            f"outputs being up to {scale:.2g}"
        )
    return largest


def _agreement(expected: np.ndarray, actual: np.ndarray, margin: float) -> float:
    chosen = actual.argmax(axis=-1)[..., np.newaxis]
    value = np.take_along_axis(expected, chosen, axis=-1)[..., 0]
    return float(np.mean(value >= expected.max(axis=-1) - margin))


def _shapes(outputs: Arrays) -> str:
    return ", ".join(f"`{name}` {array.shape}" for name, array in outputs.items())
