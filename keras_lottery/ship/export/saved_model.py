"""Export to TensorFlow's SavedModel."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import keras

from keras_lottery.keras_bridge.layers import walk
from keras_lottery.keras_bridge.layers.convert import check_layer_names
from keras_lottery.ship.export.data import checks_for
from keras_lottery.ship.export.deliver import deliver
from keras_lottery.ship.export.files import saved_model_path
from keras_lottery.ship.export.in_tensorflow import in_tensorflow, on_tensorflow
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.signature import Arrays, Run, in_batches, input_signature
from keras_lottery.ship.export.source import (
    check_dense,
    keras_model,
    plain_copy,
    precision,
)


def to_saved_model(
    ticket_or_model: Any,
    path: str | os.PathLike[str],
    test_data: tuple[Any, Any] | None = None,
    dense: keras.Model | None = None,
) -> ExportReport:
    """Writes a SavedModel directory for TensorFlow Serving and the like.

    Args:
        ticket_or_model: a ticket (its trained model is exported), or a masked or an
            ordinary Keras model.
        path: the directory to write. An older SavedModel is replaced once the new one
            has been loaded and computes what the model computes; a directory that
            holds something else is refused.
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
        RuntimeError: if TensorFlow is not installed. On another backend of Keras, it
            writes the file in a process of its own.
    """
    folder = saved_model_path(path)
    given = keras_model(ticket_or_model)
    check_layer_names(given)
    check_dense(dense)
    if not on_tensorflow("to_saved_model"):
        arguments = {
            "ticket_or_model": given,
            "test_data": test_data,
            "dense": dense,
        }
        return in_tensorflow(to_saved_model, folder, arguments)
    checks = checks_for(given, test_data)
    plain = plain_copy(given)
    return deliver(
        given,
        plain,
        folder,
        "saved_model",
        write=write_saved_model,
        read=_read,
        checks=checks,
        precision=precision(given),
        dense=dense,
    )


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Writes a model as a SavedModel with one signature."""
    # `model.export` stores every variable twice (keras-team/keras#23553): it tracks the
    # model as well as the variables that the endpoint tracks by itself. The endpoint
    # does not track the tables of lookup layers, which have no variables.
    archive = keras.export.ExportArchive()
    for _, layer in walk(model):
        if not layer.variables:
            archive.track(layer)
    call = partial(model, training=False)
    archive.add_endpoint("serve", call, input_signature=input_signature(model))
    archive.write_out(path, verbose=False)


def _read(path: Path) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    _, signature = loaded.signatures["serving_default"].structured_input_signature
    sizes = [spec.shape[0] for spec in signature.values()]

    def run(inputs: Arrays) -> Arrays:
        # A signature outlives its variables unless `loaded` is kept, as it is here.
        outputs = loaded.signatures["serving_default"](
            **{name: tf.constant(array) for name, array in inputs.items()}
        )
        return {name: output.numpy() for name, output in outputs.items()}

    return in_batches(run, 256, sizes[0])
