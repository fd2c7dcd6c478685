"""The candidate files to try for a trained model."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from keras_lottery.keras_bridge.layers import strip_masks
from keras_lottery.ship.export import (
    ExportError,
    ExportReport,
    to_litert,
    to_onnx,
    to_openvino,
    to_saved_model,
)
from keras_lottery.structured import compact

Export = Callable[[Any, Path], ExportReport]

SMALLER = 0.99
"""A sparse file is a candidate if its size is at most this share of the dense one's."""


@dataclass(frozen=True)
class Candidate:
    """A file to try.

    Args:
        name: the name of the file without its ending.
        made: how the file is made, step by step.
        model: the model that is exported.
        export: writes the file to a path.
    """

    name: str
    made: tuple[str, ...]
    model: keras.Model
    export: Export

    def write(self, folder: Path, ending: str) -> ExportReport:
        """Writes the file without printing anything.

        Raises:
            ExportError: if the file cannot be written or does not work.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            return self.export(self.model, folder / f"{self.name}{ending}")


def candidates(
    name: str,
    model: keras.Model,
    target: str,
    examples: Any,
    failed: dict[str, str],
) -> Iterator[Candidate]:
    """The files to try for a trained model, masked or not.

    Args:
        name: the beginning of the files' names.
        model: the model.
        target: `"mobile"`: .tflite files of float32, sparsely encoded or not, float16,
            int8 weights (`dynamic`) and int8 arithmetic. `"server"`: SavedModels of
            float32 and of Keras's own int8. `"microcontroller"`: dense .tflite files of
            float32 and int8. `"onnx"`: .onnx files of float32 and of Keras's own int8.
            `"openvino"`: float32 alone, as OpenVINO computes Keras's int8 wrongly. If
            `compact` can remove something, the same files of the compacted model are
            candidates, too; they are compared with those of `model`.
        examples: typical inputs, from which int8 takes its ranges, or `None`.
        failed: a dictionary that receives the reason if `compact` refuses the model.
    """
    Form = tuple[str, tuple[str, ...], keras.Model, keras.Model | None]
    forms: list[Form] = [(name, (), model, None)]
    try:
        small, report = compact(model, return_report=True)
    except ValueError as error:
        failed[f"{name}_compact"] = str(error)
    else:
        if report.parameters_after < report.parameters_before:
            forms.append((f"{name}_compact", ("compact(model)",), small, model))
    for prefix, made, form, dense in forms:
        for way, (step, export) in WAYS[target].items():
            if examples is None and "representative_data" in step:
                failed[f"{prefix}_{way}"] = "its ranges need `data`"
                continue
            yield Candidate(
                f"{prefix}_{way}",
                (*made, step),
                form,
                partial(export, examples=examples, dense=dense),
            )


def _litert(
    model: keras.Model, path: Path, examples: Any, **options: Any
) -> ExportReport:
    return to_litert(model, path, representative_data=examples, **options)


def _sparse(
    model: keras.Model,
    path: Path,
    examples: Any,
    dense: keras.Model | None = None,
) -> ExportReport:
    report = to_litert(model, path, representative_data=examples, dense=dense)
    if report.sparsity == 0:
        raise ExportError("The model has no zeros to leave out.")
    as_dense = any(note.startswith("Not encoded sparsely") for note in report.notes)
    if as_dense or (dense is None and report.bytes > SMALLER * report.dense_bytes):
        # The file is dense or hardly smaller, and a dense file is tried anyway.
        reason = f"It has {report.bytes:,} bytes, the dense file {report.dense_bytes:,}"
        raise ExportError(" ".join([*report.notes, f"{reason}."]))
    return report


def _float32(
    model: keras.Model,
    path: Path,
    examples: Any,
    dense: keras.Model | None,
    to: Callable[..., ExportReport],
) -> ExportReport:
    return to(model, path, dense=dense)


def _keras_int8(
    model: keras.Model,
    path: Path,
    examples: Any,
    dense: keras.Model | None,
    to: Callable[..., ExportReport],
) -> ExportReport:
    other = None if dense is None else _in_int8(dense)
    return to(_in_int8(model), path, dense=other)


def _in_int8(model: keras.Model) -> keras.Model:
    plain = strip_masks(model)
    with warnings.catch_warnings():
        # Keras warns of each layer that has nothing to quantise.
        warnings.filterwarnings("ignore", message=".*`quantize` method")
        plain.quantize("int8")
    return plain


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
    "microcontroller": {
        "float32": ("to_litert(sparse=False)", partial(_litert, sparse=False)),
        "int8": (
            "to_litert(quantize='int8', representative_data=x_train)",
            partial(_litert, quantize="int8"),
        ),
    },
    "server": {
        "float32": ("to_saved_model()", partial(_float32, to=to_saved_model)),
        "int8": (
            "model.quantize('int8'), to_saved_model()",
            partial(_keras_int8, to=to_saved_model),
        ),
    },
    "onnx": {
        "float32": ("to_onnx()", partial(_float32, to=to_onnx)),
        "int8": ("model.quantize('int8'), to_onnx()", partial(_keras_int8, to=to_onnx)),
    },
    "openvino": {"float32": ("to_openvino()", partial(_float32, to=to_openvino))},
}
"""For each target, the ways to make a file: in words, and as a function."""
