"""The files that are worth a try for a trained model."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery.compact import compact
from keras_lottery.export import (
    ExportError,
    ExportReport,
    to_litert,
    to_saved_model,
)
from keras_lottery.layers import strip_masks

Export = Callable[[Any, Path], ExportReport]


@dataclass(frozen=True)
class Candidate:
    """A file to try.

    Args:
        name: of the file, without its ending.
        made: how it is made, a step each.
        model: what is exported.
        export: writes it to a path.
    """

    name: str
    made: tuple[str, ...]
    model: keras.Model
    export: Export

    def write(self, folder: Path, ending: str) -> ExportReport:
        """Writes the file, in silence.

        Raises:
            ExportError: if it cannot be written or does not work.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            return self.export(self.model, folder / f"{self.name}{ending}")


def candidates(
    name: str, model: keras.Model, target: str, examples: np.ndarray
) -> Iterator[Candidate]:
    """The files to try for a trained model, masked or not.

    Args:
        name: what their names begin with.
        model: the model.
        target: `"mobile"`: .tflite files of float32, sparsely encoded or not, float16,
            int8 weights (`dynamic`) and int8 arithmetic. `"server"`: SavedModels of
            float32 and of Keras's own int8. Each also of the compacted model, if there
            is something to remove.
        examples: typical inputs, for the ranges of int8.
    """
    ways = WAYS[target]
    for prefix, made, form in forms(model):
        for way, (step, export) in ways.items():
            yield Candidate(
                f"{name}_{prefix}{way}",
                (*made, step),
                form,
                partial(export, examples=examples),
            )


def forms(model: keras.Model) -> Iterator[tuple[str, tuple[str, ...], keras.Model]]:
    """The model as it is, and without its dead units, if it has any."""
    yield "", (), model
    try:
        small, report = compact(model, return_report=True)
    except ValueError:  # A subclassed model cannot be followed.
        return
    if report.parameters_after < report.parameters_before:
        yield "compact_", ("compact(model)",), small


def _litert(
    model: keras.Model, path: Path, examples: np.ndarray, **options: Any
) -> ExportReport:
    return to_litert(model, path, representative_data=examples, **options)


def _sparse(model: keras.Model, path: Path, examples: np.ndarray) -> ExportReport:
    report = to_litert(model, path, representative_data=examples)
    if report.sparsity == 0 or report.notes:
        # A dense file was written, which is tried as such.
        reason = " ".join(report.notes) or "The model has no zeros to leave out."
        raise ExportError(reason)
    return report


def _saved_model(model: keras.Model, path: Path, examples: np.ndarray) -> ExportReport:
    return to_saved_model(model, path)


def _keras_int8(model: keras.Model, path: Path, examples: np.ndarray) -> ExportReport:
    plain = strip_masks(model)
    with warnings.catch_warnings():
        # It names each layer that has nothing to quantise.
        warnings.filterwarnings("ignore", message=".*`quantize` method")
        plain.quantize("int8")
    return to_saved_model(plain, path)


WAYS: dict[str, dict[str, tuple[str, Callable[..., ExportReport]]]] = {
    "mobile": {
        "float32": ("to_litert(sparse=False)", partial(_litert, sparse=False)),
        "sparse": ("to_litert()", _sparse),
        "float16": (
            "to_litert(quantize='float16')",
            partial(_litert, quantize="float16"),
        ),
        "dynamic": (
            "to_litert(quantize='dynamic')",
            partial(_litert, quantize="dynamic"),
        ),
        "int8": (
            "to_litert(quantize='int8', representative_data=x_train)",
            partial(_litert, quantize="int8"),
        ),
    },
    "server": {
        "float32": ("to_saved_model()", _saved_model),
        "int8": ("model.quantize('int8'), to_saved_model()", _keras_int8),
    },
}
"""For each target: how a file is made, in words and as a function."""
