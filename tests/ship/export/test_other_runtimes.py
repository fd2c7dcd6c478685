"""ONNX and OpenVINO, where their runtimes are installed."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_lottery.keras_bridge.layers import mask_model
from keras_lottery.pruning import prune
from keras_lottery.ship.export import other_runtimes, to_onnx, to_openvino

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def model():
    """Two inputs, outputs by name, masked and pruned."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    hidden = L.Dense(8, "relu")(L.Concatenate()([b, a]))
    outputs = {"z": L.Dense(3, name="z")(hidden), "c": L.Dense(1, name="c")(hidden)}
    masked = mask_model(keras.Model([a, b], outputs))
    prune(masked, 0.5)
    return masked


@pytest.mark.parametrize(
    ("export", "name", "runtime"),
    [(to_onnx, "m.onnx", "onnxruntime"), (to_openvino, "m", "openvino")],
)
def test_files_compute_what_the_model_computes(model, tmp_path, export, name, runtime):
    pytest.importorskip(runtime)
    report = export(model, tmp_path / name)
    assert report.max_difference < 1e-5  # Outputs are compared by their names.
    assert report.sparsity == pytest.approx(0.5, abs=0.01)
    # Zeros are written like other numbers.
    assert report.bytes == pytest.approx(report.dense_bytes, rel=0.02)
    export(model, tmp_path / name)  # An older one is replaced.


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
