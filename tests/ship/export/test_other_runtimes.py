"""ONNX and OpenVINO, where their runtimes are installed."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_lottery.keras_bridge.layers import mask_model
from keras_lottery.pruning import prune
from keras_lottery.ship.deploy import benchmark
from keras_lottery.ship.deploy.quality import outputs_of
from keras_lottery.ship.export import (
    ExportError,
    other_runtimes,
    to_litert,
    to_onnx,
    to_openvino,
    to_saved_model,
)

pytestmark = pytest.mark.tensorflow
in_both = pytest.mark.parametrize(
    ("export", "name", "runtime"),
    [(to_onnx, "m.onnx", "onnxruntime"), (to_openvino, "m", "openvino")],
)


@pytest.fixture(scope="module")
def model():
    """Two inputs and two outputs by name, neither in order; masked and pruned."""
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    hidden = L.Dense(8, "relu")(L.Concatenate()([b, a]))
    outputs = {"z": L.Dense(3, name="z")(hidden), "c": L.Dense(1, name="c")(hidden)}
    masked = mask_model(keras.Model({"b": b, "a": a}, outputs))
    prune(masked, 0.5)
    return masked


@in_both
def test_files_compute_what_the_model_computes(model, tmp_path, export, name, runtime):
    pytest.importorskip(runtime)
    report = export(model, tmp_path / name)
    assert report.max_difference < 1e-5  # Outputs are compared by their names.
    assert report.sparsity == pytest.approx(0.5, abs=0.01)
    # Zeros are written like other numbers.
    assert report.bytes == pytest.approx(report.dense_bytes, rel=0.02)
    export(model, tmp_path / name)  # An older one is replaced.


@in_both
def test_recurrent_layers_attention_and_exact_gelu(export, name, runtime, tmp_path):
    pytest.importorskip(runtime)
    words = keras.Input((5,), dtype="int32", name="words")
    hidden = L.GRU(4, return_sequences=True)(L.Embedding(9, 4)(words))
    hidden = L.Dense(4, "gelu")(L.MultiHeadAttention(2, 2)(hidden, hidden))
    model = keras.Model(words, [hidden, L.Dense(2)(hidden)])
    assert export(model, tmp_path / name).max_difference < 1e-5
    # The file's own names are those of the other formats.
    x = np.random.default_rng(0).integers(9, size=(300, 5))  # In two batches.
    found = outputs_of(tmp_path / name, {"words": x})
    assert sorted(found) == ["output_0", "output_1"]
    for i, expected in enumerate(model.predict(x, verbose=0)):
        np.testing.assert_allclose(found[f"output_{i}"], expected, atol=1e-5)


@in_both
def test_a_file_that_computes_something_else_is_refused(
    export, name, runtime, tmp_path, monkeypatch
):
    pytest.importorskip(runtime)
    model, other = (keras.Sequential([keras.Input((4,)), L.Dense(2)]) for _ in "ab")
    function = export.__name__.replace("to_", "_write_")
    write = getattr(other_runtimes, function)
    monkeypatch.setattr(other_runtimes, function, lambda _, path: write(other, path))
    with pytest.raises(ExportError, match="differs from the Keras model's"):
        export(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_all_formats_are_measured_side_by_side(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3)])
    names = {to_litert: "m.tflite", to_saved_model: "s", to_onnx: "m.onnx"}
    names[to_openvino] = "o"
    for export, name in names.items():
        export(model, tmp_path / name)
    x = np.random.default_rng(0).normal(size=(60, 4))  # Files take float32.
    y = np.asarray(model(x)).argmax(axis=-1)
    files = [tmp_path / name for name in names.values()]
    table = benchmark(files, (x, y), rounds=2, seconds=0.05)
    assert list(table["format"]) == ["litert", "saved_model", "onnx", "openvino"]
    assert (table["accuracy"] == 1).all()
    assert (table[["p50_us", "bytes", "gzip_bytes"]] > 0).all(axis=None)


def test_a_runtime_that_is_not_installed_is_named_by_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(other_runtimes.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "m.onnx").touch()
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "model.xml").touch()
    for name, package in ("m.onnx", "onnx"), ("o", "openvino"):
        with pytest.raises(ImportError, match=rf"{name}' needs .*\[{package}\]"):
            benchmark(tmp_path / name)


def test_what_is_not_installed_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(other_runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"tf2onnx.*keras_lottery\[onnx\]"):
        to_onnx(model, tmp_path / "m.onnx")
    with pytest.raises(ImportError, match=r"keras_lottery\[openvino\]"):
        to_openvino(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_other_folders_are_not_replaced(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="a directory for OpenVINO"):
        to_openvino(model, tmp_path)
    with pytest.raises(ValueError, match=r"\.onnx"):
        to_onnx(model, tmp_path / "m.tflite")
    assert np.asarray([p.name for p in tmp_path.iterdir()]).tolist() == ["notes.txt"]
