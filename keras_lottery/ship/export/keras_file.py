"""Export to Keras's own file format."""

import os
from pathlib import Path
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.randomness import undrawn
from keras_lottery.ship.export.data import checks_for
from keras_lottery.ship.export.deliver import deliver
from keras_lottery.ship.export.files import file_path
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.signature import Run, run_keras
from keras_lottery.ship.export.source import (
    check_dense,
    keras_model,
    plain_copy,
    precision,
)


def to_keras(
    ticket_or_model: Any,
    path: str | os.PathLike[str],
    test_data: tuple[Any, Any] | None = None,
    dense: keras.Model | None = None,
) -> ExportReport:
    """Writes a `.keras` file of ordinary layers, which can be loaded with Keras alone.

    This works on every backend. The file holds no optimizer state.

    Args:
        ticket_or_model: a ticket (its trained model is exported), or a masked or an
            ordinary Keras model.
        path: the file to write, ending in `.keras`. An older file is replaced once the
            new one has been loaded and computes what the model computes.
        test_data: arrays (x, y), on which the file is checked and its accuracy (of a
            classifier) and the model's other compiled metrics are measured.
        dense: the model from which this one was made, for example by `compact`: the
            report compares the sizes of their files. By default it compares with a
            file of the same model in which no weight is pruned.

    Returns:
        The report, which is also printed.

    Raises:
        ValueError: if an argument is invalid.
        ExportError: if the file fails its check; nothing is written then.

    Example:

    >>> import keras, tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = to_keras(model, f"{folder.name}/tiny.keras")
    /...tiny.keras (keras)
      bytes ...
    >>> report.max_difference
    0.0
    """
    file = file_path(path, ".keras")
    given = keras_model(ticket_or_model)
    check_dense(dense)
    checks = checks_for(given, test_data)
    plain = plain_copy(given)
    return deliver(
        given,
        plain,
        file,
        "keras",
        write=lambda model, path: model.save(path),
        read=_read,
        checks=checks,
        precision=precision(given),
        dense=dense,
    )


def _read(path: Path) -> Run:
    with undrawn():
        model = keras.saving.load_model(path, compile=False)
    return run_keras(model)
