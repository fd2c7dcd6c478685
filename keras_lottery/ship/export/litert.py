"""Export to LiteRT (formerly TensorFlow Lite), for phones and small devices."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_lottery.checks import choice, flag
from keras_lottery.keras_bridge.internals.versions import EXPORTS_LITERT
from keras_lottery.keras_bridge.layers.convert import check_layer_names
from keras_lottery.keras_bridge.layers.recurrent import batch_size_of
from keras_lottery.ship.export.data import as_inputs, checks_for, some_rows
from keras_lottery.ship.export.deliver import deliver
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.files import file_path
from keras_lottery.ship.export.in_tensorflow import in_tensorflow, on_tensorflow
from keras_lottery.ship.export.remedies import check_calibration, remedies_named
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.saved_model import write_saved_model
from keras_lottery.ship.export.signature import Arrays, Run, in_batches, input_signature
from keras_lottery.ship.export.source import (
    check_dense,
    compute_in_float32,
    keras_model,
    plain_copy,
    precision,
    sparsity,
)
from keras_lottery.ship.export.sparse_on_arm import wrong_on_arm

Quantize = Literal["dynamic", "int8", "float16", "int4"] | None

CALIBRATION_ROWS = 500


def to_litert(
    ticket_or_model: Any,
    path: str | os.PathLike[str],
    sparse: bool = True,
    quantize: Quantize = None,
    representative_data: Any = None,
    test_data: tuple[Any, Any] | None = None,
    dense: keras.Model | None = None,
) -> ExportReport:
    """Writes a `.tflite` file, and runs it in LiteRT before putting it in place.

    Sparse encoding stores only the remaining weights. It makes the file smaller; it
    makes it faster only from about 97 % sparsity on, or where the zeros come in blocks
    of four inputs. Sparse files with int8 weights mostly fail to load in LiteRT or
    answer wrongly, so `"dynamic"` and `"int8"` write dense files, in which zeros only
    shrink the download (gzip). A sparse file is replaced by a dense one if it is no
    smaller, does not compute what the model computes, or would be run wrongly by
    XNNPACK on ARM (see `explain_sparse`). The report's notes say so.

    Args:
        ticket_or_model: a ticket (its trained model is exported), or a masked or an
            ordinary Keras model.
        path: the file to write, ending in `.tflite`. An older file is replaced once
            the new one has passed its check.
        sparse: whether to try sparse encoding.
        quantize: `None` for float32; `"float16"` for weights of half the size;
            `"dynamic"` for int8 weights; `"int8"` for int8 weights and arithmetic;
            `"int4"` for int4 weights, of an eighth of the size, in dense layers and
            convolutions, by ai-edge-quantizer. Inputs and outputs stay as they are.
        representative_data: typical inputs, from which `"int8"` chooses its ranges: up
            to 500 rows, evenly spread. An array, or for a model with several inputs a
            dictionary of arrays by input name. Without `test_data`, the file is checked
            on these rows.
        test_data: arrays (x, y), on which the file is checked and its accuracy (of a
            classifier) and the model's other compiled metrics are measured.
        dense: the model from which this one was made, for example by `compact`: the
            report compares the sizes of their files. By default it compares with a
            file of the same model in which no weight is pruned.

    Returns:
        The report, which is also printed.

    Raises:
        ValueError: if an argument is invalid.
        ExportError: if the file fails its check, or needs operations of TensorFlow
            that LiteRT lacks; nothing is written then. The error names the layers
            that may need them, and what to do: recurrent ones (`unroll=True`), lookups
            and float64.
        ImportError: if `ai-edge-litert` is not installed, or, for `"int4"`,
            `ai-edge-quantizer`.
        RuntimeError: if TensorFlow is not installed. On another backend of Keras, it
            writes the file in a process of its own.
    """
    file = file_path(path, ".tflite")
    choice("quantize", quantize, (None, "dynamic", "int8", "float16", "int4"))
    if quantize == "int4" and importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ImportError(
            "quantize='int4' needs ai-edge-quantizer, which is not installed. "
            "Call `pip install keras_lottery[quantizer]`."
        )
    flag("sparse", sparse)
    if quantize == "int8" and representative_data is None:
        raise ValueError(
            "Expected `representative_data` with quantize='int8', which takes its "
            "ranges from them. Received: representative_data=None. Pass the training "
            f"inputs: up to {CALIBRATION_ROWS} rows, spread evenly, are used."
        )
    _interpreter_class()
    given = keras_model(ticket_or_model)
    check_layer_names(given)
    check_dense(dense)
    if not on_tensorflow("to_litert"):
        arguments = {
            "ticket_or_model": given,
            "sparse": sparse,
            "quantize": quantize,
            "representative_data": representative_data,
            "test_data": test_data,
            "dense": dense,
        }
        return in_tensorflow(to_litert, file, arguments)
    examples = None
    if representative_data is not None:
        inputs = as_inputs(given, representative_data, "representative_data")
        examples = some_rows(inputs, CALIBRATION_ROWS)
    checks = checks_for(given, test_data, examples)
    plain = plain_copy(given)

    notes = []
    sparse = sparse and sparsity(plain) > 0
    if sparse and quantize is None and (wrong := wrong_on_arm(plain)):
        notes.append(f"Not encoded sparsely, since it {wrong[0]}.")
        sparse = False
    eight_bits = quantize in ("dynamic", "int8", "int4")
    if sparse and eight_bits:
        notes.append(
            f"Not encoded sparsely: with quantize={quantize!r} LiteRT fails to load "
            "such files or answers wrongly."
        )
    if precision(given) != "float32":
        compute_in_float32(plain)
        notes.append("Computes in float32, since LiteRT lacks mixed precision.")

    if quantize == "int8":
        check_calibration(plain)
    write = partial(_write, quantize=quantize, examples=examples)
    with remedies_named(plain, file):
        return deliver(
            given,
            plain,
            file,
            "litert",
            write=write,
            write_sparse=(
                partial(write, sparse=True) if sparse and not eight_bits else None
            ),
            read=_read,
            checks=checks,
            precision="int8" if eight_bits else quantize or precision(given),
            notes=notes,
            dense=dense,
        )


def _write(
    model: keras.Model,
    path: Path,
    quantize: Quantize,
    examples: Arrays | None,
    sparse: bool = False,
) -> None:
    import tensorflow as tf

    if quantize == "int4":
        _write(model, path, None, None)
        _in_four_bits(path)
        return
    options: dict[str, Any] = {"optimizations": []}
    if sparse:
        options["optimizations"].append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if quantize:
        options["optimizations"].append(tf.lite.Optimize.DEFAULT)
    if quantize == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if quantize == "int8" and examples is not None:
        options["representative_dataset"] = partial(
            _batches, examples, batch_size_of(model) or 1
        )
    if not EXPORTS_LITERT:
        _convert(model, path, options)
        return
    model.export(
        path,
        format="litert",
        verbose=False,
        input_signature=input_signature(model),
        **options,
    )


def _in_four_bits(path: Path) -> None:
    """Rounds the weights of a float32 file to int4; inference rounds activations."""
    from ai_edge_quantizer import quantizer, recipe

    whole = path.with_name(f"float32_{path.name}")
    path.rename(whole)
    rounding = quantizer.Quantizer(str(whole), recipe.dynamic_wi4_afp32())
    rounding.quantize().export_model(str(path))
    whole.unlink()


def _convert(model: keras.Model, path: Path, options: dict[str, Any]) -> None:
    """Converts a model by way of a SavedModel, as Keras's own export does."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        for name, value in options.pop("target_spec", {}).items():
            setattr(converter.target_spec, name, value)
        for name, value in options.items():
            setattr(converter, name, value)
        path.write_bytes(converter.convert())


def _batches(examples: Arrays, size: int) -> Iterator[Arrays]:
    """The whole batches of the examples."""
    for end in range(size, len(next(iter(examples.values()))) + 1, size):
        yield {name: array[end - size : end] for name, array in examples.items()}


def _read(path: Path) -> Run:
    interpreter = _interpreter_class()(model_path=str(path))
    _check_readers(interpreter)
    runner = interpreter.get_signature_runner("serving_default")
    details = next(iter(runner.get_input_details().values()))
    fixed = int(details["shape_signature"][0])
    # This runs row by row, as on a phone: a file may not accept other batches.
    return in_batches(lambda inputs: runner(**inputs), 1, fixed if fixed > 0 else None)


def _check_readers(interpreter: Any) -> None:
    """Raises ExportError if an operator would misread sparse float16 weights.

    LiteRT reads such weights as if they were dense unless they are unpacked first. It
    then reads beyond their end, which gives NaN or crashes the process.
    """
    sparse = {
        tensor["index"]
        for tensor in interpreter.get_tensor_details()
        if tensor["sparsity_parameters"] and tensor["dtype"] == np.float16
    }
    for node in interpreter._get_ops_details():
        unpacks = node["op_name"] in ("DENSIFY", "DELEGATE")
        if not unpacks and sparse.intersection(node["inputs"]):
            raise ExportError(
                f"{node['op_name']} reads sparse float16 weights beyond their end"
            )


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "`to_litert` runs what it writes and needs the package ai-edge-litert for "
            "that. Install it with `pip install ai-edge-litert`."
        ) from error
    return Interpreter
