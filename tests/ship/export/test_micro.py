"""A model as C: compiled, linked, and read back byte for byte."""

import hashlib
import shutil
import subprocess
import zlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.ship.export import ExportError, to_c_array, to_litert
from keras_lottery.ship.export.micro import _check
from keras_lottery.ship.export.tflite_file import (
    Graph,
    Operator,
    Tensor,
    read_graphs,
)

GCC = shutil.which("gcc")

MAIN = r"""
#include <stdint.h>
#include <stdio.h>
#include "net.h"

struct resolver { int added; };

int main(void) {
  uint32_t crc = 0xffffffffu;
  for (unsigned long i = 0; i < net_length; ++i) {
    crc ^= net[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  printf("%lu %lu %d %u\n", net_length, (unsigned long)NET_BYTES,
         (int)((uintptr_t)net % 16), (unsigned)(crc ^ 0xffffffffu));
  printf("%d %d %d\n", NET_OPERATORS, NET_INPUT_0_BYTES, NET_OUTPUT_0_SIZE);
  return 0;
}
"""


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    """A file of a small network of convolutions."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("to_litert needs TensorFlow")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3, "softmax"),
        ]
    )
    path = tmp_path_factory.mktemp("micro") / "net.tflite"
    to_litert(model, path)
    return path


@pytest.mark.tensorflow
@pytest.mark.skipif(GCC is None, reason="gcc is not installed")
@pytest.mark.parametrize("standard", ["c99", "c11", "c++11"])
def test_compiled_it_is_the_file_aligned(tflite, tmp_path, standard):
    report = to_c_array(tflite, tmp_path / "net.c")
    (tmp_path / "main.c").write_text(MAIN)
    language = ["-x", "c++"] if "++" in standard else []
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-std={standard}"]
    build = [GCC, *strict, *language, "net.c", "main.c", "-o", "main"]
    subprocess.run(build, cwd=tmp_path, check=True)
    run = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True)
    data = tflite.read_bytes()
    first, second = run.stdout.splitlines()
    assert first == f"{len(data)} {len(data)} 0 {zlib.crc32(data)}"
    assert second == f"{len(report.operators)} 256 3"


@pytest.mark.tensorflow
def test_the_report_and_the_header_agree(tflite, tmp_path, capsys):
    report = to_c_array(tflite, tmp_path / "new" / "net.c")
    assert capsys.readouterr().out == f"{report}\n"
    assert report.bytes == tflite.stat().st_size
    # Between convolution and Dense, the rows of a batch are counted.
    assert {
        "AddConv2D",
        "AddMaxPool2D",
        "AddReshape",
        "AddFullyConnected",
        "AddSoftmax",
    } <= set(report.operators)
    header = (tmp_path / "new" / "net.h").read_text()
    for method in report.operators:
        assert f"(resolver).{method}();" in header
    assert f"NET_OPERATORS {len(report.operators)}\n" in header
    assert "float32 1x8x8x1" in report.inputs[0]
    assert report.to_dict()["path"] == str(tmp_path / "new" / "net.c")


@pytest.mark.tensorflow
def test_it_is_deterministic(tflite, tmp_path):
    texts = []
    for folder in ("one", "two"):
        to_c_array(tflite, tmp_path / folder / "net.c")
        files = sorted((tmp_path / folder).iterdir())
        texts.append([hashlib.sha256(file.read_bytes()).digest() for file in files])
    assert len(texts[0]) == 2
    assert texts[0] == texts[1]


@pytest.mark.tensorflow
@pytest.mark.parametrize("names", [("zeta", "alpha"), ("output_0", "output_1")])
def test_the_header_says_which_output_is_which(names, tmp_path):
    """Outputs of equal shapes, told apart by what they are for inputs of zeros."""
    from ai_edge_litert.interpreter import Interpreter

    x = keras.Input((4,), name="x")
    y = [
        layers.Dense(3, bias_initializer=constant, name=name)(x)
        for name, constant in (("of_z", "ones"), ("of_a", "zeros"))
    ]
    keyed = names[0] == "zeta"
    model = keras.Model(x, dict(zip(names, y, strict=True)) if keyed else y)
    path = tmp_path / "net.tflite"
    to_litert(model, path)
    report = to_c_array(path, tmp_path / "net.c")
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    interpreter.set_tensor(source["index"], np.zeros((1, 4), "float32"))
    interpreter.invoke()
    header = (tmp_path / "net.h").read_text()
    for i, details in enumerate(interpreter.get_output_details()):
        is_first = bool(interpreter.get_tensor(details["index"]).any())
        name = names[0 if is_first else 1]
        assert report.outputs[i].startswith(f"{name} (")
        assert (
            f"/* {name} ({details['name']}): float32 1x3 */\n#define "
            + (f"NET_OUTPUT_{i}_SIZE")
            in header
        )
    assert report.inputs[0].startswith("x (")


@pytest.mark.tensorflow
def test_a_ticket_of_int8_has_its_quantisation(ticket, tmp_path):
    x = np.random.default_rng(0).random((20, 16), dtype="float32")
    report = to_c_array(
        ticket, tmp_path / "net.c", quantize="int8", representative_data=x
    )
    assert "AddQuantize" in report.operators
    assert report.litert.checked_on == "20 rows of representative data"
    assert "max difference" in str(report)
    assert report.litert.bytes == report.bytes


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"quantize": "dynamic"}, "FULLY_CONNECTED of float inputs and int8"),
        ({"quantize": "float16", "sparse": False}, "half precision"),
        ({}, r"not support the sparse encoding.*sparse=False"),
    ],
)
def test_what_micro_would_misread_is_refused(lenet, tmp_path, how, message):
    to_litert(lenet, tmp_path / "lenet.tflite", **how)
    with pytest.raises(ExportError, match=f"(?s)Nothing was written.*{message}"):
        to_c_array(tmp_path / "lenet.tflite", tmp_path / "net.c")
    assert [path.name for path in tmp_path.iterdir()] == ["lenet.tflite"]


@pytest.mark.tensorflow
@pytest.mark.skipif(GCC is None, reason="gcc is not installed")
@pytest.mark.parametrize("more", [-1, 1])
def test_the_header_of_another_file_does_not_compile(tflite, tmp_path, more):
    report = to_c_array(tflite, tmp_path / "net.c")
    header = tmp_path / "net.h"
    text, size = header.read_text(), f"NET_BYTES {report.bytes}\n"
    assert size in text
    header.write_text(text.replace(size, f"NET_BYTES {report.bytes + more}\n"))
    build = [GCC, "-c", "net.c", "-o", "net.o"]
    run = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode and "net" in run.stderr


@pytest.mark.parametrize(
    ("name", "inputs", "refused"),
    [
        ("BATCH_MATMUL", (0, 1), True),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", (0, -1, -1, 1), True),
        ("FULLY_CONNECTED", (0, 2, -1), True),
        ("DEQUANTIZE", (1,), False),
        ("EMBEDDING_LOOKUP", (0, 1), False),
        # No bias is no tensor, and not the last of the file.
        ("FULLY_CONNECTED", (0, 0, -1), False),
    ],
)
def test_kernels_of_floats_and_integers_are_refused(name, inputs, refused):
    types = ("FLOAT32", "INT8", "INT4", "FLOAT32", "INT8")
    tensors = [Tensor(f"t{i}", (4, 4), kind) for i, kind in enumerate(types)]
    graph = Graph(tensors, [Operator(name, inputs, (3,))], (0,), (3,))
    if refused:
        with pytest.raises(ExportError, match=f"no {name} of float inputs"):
            _check([graph])
    else:
        _check([graph])


def test_operators_that_micro_lacks_are_named():
    graph = Graph([], [Operator("CONV_3D", (), ()), Operator("ADD", (), ())], (), ())
    with pytest.raises(ExportError, match=r"lacks the operators CONV_3D$"):
        _check([graph])


@pytest.mark.tensorflow
def test_a_damaged_file_is_refused(tflite, tmp_path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    data = tflite.read_bytes()
    for damaged in (b"", b"no such file", data[:100], data[:4] + b"TFL9" + data[8:]):
        (tmp_path / "bad.tflite").write_bytes(damaged)
        with pytest.raises(ExportError, match=r"no \.tflite file|cannot load"):
            to_c_array(tmp_path / "bad.tflite", tmp_path / "net.c")
    # LiteRT's verifier looks at no numbers of tensors.
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    model.subgraphs[0].inputs = [999]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "bad.tflite").write_bytes(builder.Output())
    with pytest.raises(ExportError, match=r"bad\.tflite': it is damaged: IndexError"):
        to_c_array(tmp_path / "bad.tflite", tmp_path / "net.c")
    assert not (tmp_path / "net.c").exists()


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("9lives.c", {}, "stem '9lives'"),
        ("my-net.c", {}, "stem 'my-net'"),
        ("int.c", {}, "stem 'int'"),
        ("mutable.c", {}, "stem 'mutable'"),
        ("co_await.c", {}, "stem 'co_await'"),
        ("main.c", {}, "stem 'main'"),
        ("_net.c", {}, "stem '_net'"),
        ("net.h", {}, r"ends in \.c"),
        ("net.c", {"quantize": "dynamic"}, "quantize='dynamic'"),
        ("net.c", {"quantize": "int8"}, "taken as it is"),
    ],
)
def test_unfit_arguments_are_refused(tmp_path, source, arguments, message):
    with pytest.raises(ValueError, match=message):
        to_c_array(tmp_path / "net.tflite", tmp_path / source, **arguments)


def test_a_missing_file_is_missed(tmp_path):
    with pytest.raises(FileNotFoundError):
        to_c_array(tmp_path / "net.tflite", tmp_path / "net.c")


@pytest.mark.tensorflow
def test_tensors_are_read_off_the_file(tflite):
    (graph,) = read_graphs(tflite.read_bytes())
    assert graph.tensors[graph.inputs[0]].shape == (1, 8, 8, 1)
    assert graph.tensors[graph.outputs[0]].shape == (1, 3)
    assert {(4, 3, 3, 1), (3, 36)} <= {tensor.shape for tensor in graph.tensors}
