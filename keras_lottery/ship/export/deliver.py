"""The steps of every export: write, check, measure, and only then move into place."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import keras

from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.quiet import quiet
from keras_lottery.ship.export.data import Checks, accuracy
from keras_lottery.ship.export.errors import ExportError, step
from keras_lottery.ship.export.files import digests_of, gzip_size_of, size_of, staged
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.signature import Arrays, Run, run_keras
from keras_lottery.ship.export.source import plain_copy, sparsity, unpruned
from keras_lottery.ship.export.verify import check_finite, compare

Write = Callable[[keras.Model, Path], None]
"""Writes a model to a path."""

Outcome = tuple[Arrays, float]
"""A file's outputs, and their largest difference from the Keras model's."""


def deliver(
    given: keras.Model,
    plain: keras.Model,
    path: Path,
    format: str,
    *,
    write: Write,
    read: Callable[[Path], Run],
    checks: Checks,
    precision: str,
    notes: Sequence[str] = (),
    write_sparse: Write | None = None,
    dense: keras.Model | None = None,
) -> ExportReport:
    """Writes a model to a file that is known to work, and reports on it.

    Args:
        given: the model that the file must agree with.
        plain: the copy of that model that is written.
        path: where the file goes.
        format: the format's name in the report.
        write: writes the file.
        read: makes a written file runnable.
        checks: the data on which to check the file.
        precision: how close the file must come, see `compare`.
        notes: notes for the report on what has been done differently so far.
        write_sparse: writes a smaller form, which is tried first. If it is no smaller
            or does not work, `write` is used instead.
        dense: the model with whose file the report compares; by default the same model
            with no weight pruned.
    """
    try:
        with staged(path) as draft:
            with _on_cpu():
                # A copy leaves the state that the model keeps between calls as it is,
                # and its recurrent states start at zero, as in the file.
                run = run_keras(duplicate(given))
                with checks.running(given):
                    expected = run(checks.inputs)
            check_finite(expected, f"the Keras model '{given.name}'")
            keras_metrics = checks.measured(expected)
            # A model without zeros is its own dense twin. Even if the report compares
            # with another model, a sparse file has to be smaller than that twin's.
            twin = None
            if sparsity(plain) and (write_sparse or dense is None):
                twin = _bytes_of(unpruned(plain), write, path.name)

            def attempt(write: Write) -> Outcome:
                with step("writing it"), quiet():
                    write(plain, draft)
                with step("running it"), quiet(), _on_cpu():
                    outputs = read(draft)(checks.inputs)
                return outputs, compare(expected, outputs, precision)

            if write_sparse is None:
                outputs, difference = attempt(write)
            else:
                try:
                    outputs, difference = attempt(write_sparse)
                    if twin and size_of(draft) >= twin:
                        raise ExportError(f"it has {size_of(draft):,} bytes, no fewer")
                except ExportError as error:
                    notes = [*notes, f"Not encoded sparsely, since then {error}."]
                    outputs, difference = attempt(write)
            report = ExportReport(
                path=path,
                format=format,
                bytes=size_of(draft),
                gzip_bytes=gzip_size_of(draft),
                dense_bytes=(
                    _bytes_of(plain_copy(dense), write, path.name)
                    if dense is not None
                    else twin or size_of(draft)
                ),
                max_difference=difference,
                checked_on=checks.described,
                sparsity=sparsity(plain),
                accuracy=_accuracy(given, outputs, checks),
                keras_accuracy=_accuracy(given, expected, checks),
                metrics=checks.measured(outputs),
                keras_metrics=keras_metrics,
                sha256=digests_of(draft),
                notes=tuple(notes),
            )
    except ExportError as error:
        raise ExportError(f"Nothing was written to '{path}': {error}") from error
    print(report)
    return report


def _on_cpu() -> AbstractContextManager[None]:
    # The model and the file both run on the CPU, where LiteRT runs: GPUs round products
    # to TF32. Files are not written in this scope, since a SavedModel remembers the
    # device.
    # On torch, "cpu:0" would be another device than "cpu".
    torch = keras.backend.backend() == "torch"
    return keras.device("cpu" if torch else "cpu:0")


def _bytes_of(model: keras.Model, write: Write, name: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        with step("writing the dense model to compare with"), quiet():
            write(model, file)
        return size_of(file)


def _accuracy(model: keras.Model, outputs: Arrays, checks: Checks) -> float | None:
    if checks.classes is None:
        return None
    (output,) = outputs.values()
    return accuracy(model, output, checks.classes)
