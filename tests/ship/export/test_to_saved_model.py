import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.ship.export import ExportError, to_saved_model

pytestmark = pytest.mark.tensorflow


def serve(path, **inputs):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures["serving_default"](
        **{name: tf.constant(array) for name, array in inputs.items()}
    )
    return {name: output.numpy() for name, output in outputs.items()}


def test_the_report_is_measured_on_the_directory(lenet, test_data, tmp_path, capfd):
    x, y = test_data
    path = tmp_path / "new" / "lenet"
    report = to_saved_model(lenet, path, test_data=test_data)
    outputs = serve(path, input_0=x)["output_0"]
    assert report.accuracy == np.mean(outputs.argmax(-1) == y) == 0.75
    assert report.max_difference < 1e-5
    files = [file for file in path.rglob("*") if file.is_file()]
    assert report.bytes == sum(file.stat().st_size for file in files)
    assert report.gzip_bytes < 0.2 * report.dense_bytes
    assert capfd.readouterr() == (f"{report}\n", "")


def test_each_weight_is_stored_once(lenet, tmp_path):
    report = to_saved_model(lenet, tmp_path / "lenet")
    variables = tmp_path / "lenet" / "variables" / "variables.data-00000-of-00001"
    assert variables.stat().st_size < 1.01 * 4 * 266_610
    assert report.bytes == pytest.approx(report.dense_bytes, rel=0.001)


def test_keras_reads_it_and_any_batch_fits(tiny, tmp_path):
    to_saved_model(tiny, tmp_path / "tiny")
    x = np.random.default_rng(0).random((7, 16), dtype="float32")
    outputs = keras.layers.TFSMLayer(tmp_path / "tiny")(x)
    np.testing.assert_allclose(outputs, tiny(x), atol=1e-6)


def test_several_inputs_and_outputs_by_name(two_by_two, two_inputs, tmp_path):
    report = to_saved_model(two_by_two, tmp_path / "two")
    assert report.max_difference < 1e-5
    outputs = serve(tmp_path / "two", **two_inputs)
    if isinstance(two_by_two.input, dict):
        expected = two_by_two(two_inputs)
    else:
        first, second = two_by_two([two_inputs["zeta"], two_inputs["alpha"]])
        expected = {"output_0": first, "output_1": second}
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        np.testing.assert_allclose(output, expected[name], atol=1e-5)


def test_lookup_tables_are_stored(tmp_path):
    inputs = keras.Input((1,), dtype="string", name="the word")
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    words = np.array([["a"], ["b"], ["c"]])
    to_saved_model(model, tmp_path / "lookup")
    outputs = serve(tmp_path / "lookup", the_word=words)["output_0"]
    np.testing.assert_allclose(outputs, model(words), atol=1e-6)


def test_a_second_export_replaces_the_first(tiny, lenet, tmp_path, left_over):
    path = tmp_path / "model"
    small = to_saved_model(tiny, path).bytes
    assert to_saved_model(lenet, path).bytes > 10 * small
    assert left_over(tmp_path) == ["model"]


def test_a_failed_export_keeps_the_first(tiny, tmp_path, left_over):
    path = to_saved_model(tiny, tmp_path / "model").path
    x = np.ones((2, 16), "float32")
    good = serve(path, input_0=x)
    tiny.layers[1].kernel.assign(np.full((8, 3), np.nan))
    with pytest.raises(ExportError, match="NaN"):
        to_saved_model(tiny, path)
    np.testing.assert_array_equal(serve(path, input_0=x)["output_0"], good["output_0"])
    assert left_over(tmp_path) == ["model"]


def test_a_directory_of_other_files_is_never_replaced(tiny, tmp_path, left_over):
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(ValueError, match="`path`"):
        to_saved_model(tiny, tmp_path)
    assert left_over(tmp_path) == ["thesis.tex"]


def test_without_tensorflow_other_backends_are_refused(
    tiny, tmp_path, left_over, monkeypatch
):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(RuntimeError, match=r"'jax'.*pip install tensorflow"):
        to_saved_model(tiny, tmp_path / "model")
    assert left_over(tmp_path) == []
