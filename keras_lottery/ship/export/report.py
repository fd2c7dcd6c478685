"""The report of an export on the file that it wrote."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keras_lottery.tables import text_table


@dataclass(frozen=True)
class ExportReport:
    """Measurements of an exported file; `str()` gives them as readable lines.

    Attributes:
        path: the file, or the directory of a SavedModel or for OpenVINO.
        format: `"keras"`, `"saved_model"`, `"litert"`, `"onnx"` or `"openvino"`.
        bytes: the size on disk; of a directory, the sum of its files.
        gzip_bytes: the size after gzip, file by file, as in a download.
        dense_bytes: the size of the same model with no weight pruned, written in the
            same way (including quantisation) but without sparse encoding; or of the
            model given as `dense`. If the model has zeros, it is measured on a second
            file, in which random values replace them.
        max_difference: the largest difference between an output of the file and of
            the Keras model.
        checked_on: the inputs on which the two were compared.
        sparsity: the share of zeros among the weights with two or more axes in the
            Keras model that was written, with its masks applied. It is not counted in
            the file, where rounding to eight bits makes further weights zero.
        accuracy: the accuracy of the file on the test data, if given.
        keras_accuracy: the accuracy of the Keras model on the same data.
        metrics: the Keras model's other compiled metrics, measured for the file on the
            test data, by the names that `evaluate` gives them; the loss, if there is
            no other metric and no accuracy.
        keras_metrics: the same for the Keras model.
        sha256: the checksum of the file, or of each file of a SavedModel, by name;
            `check_file` compares it.
        notes: what was done differently from the request, and why.
    """

    path: Path
    format: str
    bytes: int
    gzip_bytes: int
    dense_bytes: int
    max_difference: float
    checked_on: str
    sparsity: float
    accuracy: float | None = None
    keras_accuracy: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    keras_metrics: Mapping[str, float] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON can hold."""
        return asdict(self) | {"path": str(self.path), "notes": list(self.notes)}

    def __str__(self) -> str:
        share = self.bytes / self.dense_bytes
        rows = [
            [
                "bytes",
                f"{self.bytes:,} ({share:.1%} of the dense model's "
                f"{self.dense_bytes:,})",
            ],
            ["gzip bytes", f"{self.gzip_bytes:,}"],
            ["sparsity", f"{self.sparsity:.2%}"],
            ["max difference", f"{self.max_difference:.2g} on {self.checked_on}"],
        ]
        if self.accuracy is not None:
            of = f"(the Keras model's {self.keras_accuracy:.2%})"
            rows.append(["accuracy", f"{self.accuracy:.2%} {of}"])
        for name, value in self.metrics.items():
            of = f"(the Keras model's {self.keras_metrics[name]:.4g})"
            rows.append([name, f"{value:.4g} {of}"])
        notes = [f"note: {note}" for note in self.notes]
        lines = "\n".join([text_table(rows), *notes])
        return f"{self.path} ({self.format})\n{textwrap.indent(lines, '  ')}"
