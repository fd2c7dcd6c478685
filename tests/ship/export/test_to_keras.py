import os

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.layers import is_masked, mask_model
from keras_lottery.pruning import prune
from keras_lottery.ship.export import ExportError, to_keras
from keras_lottery.structured import compact
from tests.models_zoo import as_array


def test_a_masked_model_becomes_a_file_of_ordinary_layers(
    lenet, test_data, tmp_path, capsys
):
    path = tmp_path / "lenet.keras"
    report = to_keras(lenet, path, test_data=test_data)
    loaded = keras.saving.load_model(path)
    x, y = test_data
    outputs = as_array(loaded(x))
    assert not is_masked(loaded)
    assert [type(layer).__name__ for layer in loaded.layers[1:]] == ["Dense"] * 3
    np.testing.assert_allclose(outputs, as_array(lenet(x)), atol=1e-6)
    assert report.accuracy == np.mean(outputs.argmax(-1) == y) == 0.75
    assert report.keras_accuracy == 0.75
    assert report.max_difference == np.abs(outputs - as_array(lenet(x))).max()
    assert report.bytes == os.path.getsize(path)
    assert report.sparsity == pytest.approx(0.95, abs=1e-4)
    assert capsys.readouterr().out == f"{report}\n"


@pytest.mark.once
def test_zeros_take_as_many_bytes_as_other_weights_until_gzip(lenet, tmp_path):
    report = to_keras(lenet, tmp_path / "lenet.keras")
    assert report.bytes == pytest.approx(report.dense_bytes, rel=0.01)
    assert report.gzip_bytes < 0.1 * report.dense_bytes


@pytest.mark.once
def test_all_zeros_are_alike(tiny, tmp_path):
    tiny.layers[0].kernel.assign(np.full((16, 8), -0.0))
    report = to_keras(tiny, tmp_path / "tiny.keras")
    (kernel, *_) = keras.saving.load_model(report.path).get_weights()
    assert not np.signbit(kernel).any()


@pytest.mark.once
def test_a_ticket_is_exported_as_trained(ticket, tmp_path):
    report = to_keras(ticket, tmp_path / "ticket.keras")
    loaded = keras.saving.load_model(report.path)
    x = np.random.default_rng(0).random((5, 16))
    expected = as_array(ticket.trained_model()(x))
    np.testing.assert_allclose(as_array(loaded(x)), expected, atol=1e-6)
    assert report.sparsity == pytest.approx(0.5, abs=0.01)


def test_the_file_holds_no_optimizer_state(tiny, tmp_path):
    tiny.compile("adam", "sparse_categorical_crossentropy")
    fresh = to_keras(tiny, tmp_path / "fresh.keras")
    tiny.fit(np.ones((4, 16)), np.zeros(4), verbose=0)
    trained = to_keras(tiny, tmp_path / "trained.keras")
    assert trained.bytes == pytest.approx(fresh.bytes, abs=100)
    assert not keras.saving.load_model(trained.path).optimizer.iterations.numpy()


@pytest.mark.once
def test_the_model_given_is_left_untouched(tiny, tmp_path):
    before = tiny.get_weights()
    to_keras(tiny, tmp_path / "tiny.keras")
    for old, new in zip(before, tiny.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.once
def test_several_inputs_and_outputs(two_by_two, two_inputs, tmp_path):
    report = to_keras(two_by_two, tmp_path / "two.keras")
    assert report.max_difference < 1e-6


@pytest.mark.once
def test_a_model_that_returns_nan_is_not_exported(nan_model, tmp_path, left_over):
    with pytest.raises(ExportError, match=r"the Keras model .* returns NaN"):
        to_keras(nan_model, tmp_path / "new" / "nan.keras")
    assert left_over(tmp_path) == []


@pytest.mark.once
def test_an_older_file_survives_a_failed_export(tiny, tmp_path, left_over):
    path = to_keras(tiny, tmp_path / "model.keras").path
    good = path.read_bytes()
    tiny.layers[1].kernel.assign(np.full((8, 3), np.nan))
    with pytest.raises(ExportError):
        to_keras(tiny, path)
    assert path.read_bytes() == good
    assert left_over(tmp_path) == ["model.keras"]


class Forgetful(layers.Layer):
    """Comes back from a file as another layer than it was."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


@pytest.mark.once
def test_a_file_that_computes_something_else_is_not_kept(tmp_path, left_over):
    class Reloaded(Forgetful):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(factor + 1, **kwargs)

    model = keras.Sequential([keras.Input((4,)), Forgetful(2.0), layers.Dense(3)])
    with (
        keras.saving.custom_object_scope({"Forgetful": Reloaded}),
        pytest.raises(ExportError, match="`output_0` differs"),
    ):
        to_keras(model, tmp_path / "model.keras")
    assert left_over(tmp_path) == []


@pytest.mark.once
def test_a_file_that_does_not_load_is_not_kept(tmp_path, left_over):
    model = keras.Sequential([keras.Input((4,)), Forgetful(2.0), layers.Dense(3)])
    with pytest.raises(ExportError, match="running it failed"):
        to_keras(model, tmp_path / "model.keras")
    assert left_over(tmp_path) == []


@pytest.mark.once
def test_bad_arguments_are_refused(tiny, tmp_path, left_over):
    with pytest.raises(ValueError, match="`path`"):
        to_keras(tiny, tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"`ticket_or_model`.*Received"):
        to_keras("model.keras", tmp_path / "model.keras")
    with pytest.raises(ValueError, match="built"):
        to_keras(keras.Sequential([layers.Dense(3)]), tmp_path / "model.keras")
    assert left_over(tmp_path) == []


@pytest.mark.once
def test_a_model_that_takes_no_random_inputs_says_what_to_pass(tmp_path):
    class Positions(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(12, 2), name="table")

        def call(self, x):
            return x + self.table[: keras.ops.shape(x)[1]]

    x = keras.Input((None, 2))
    y = layers.GlobalAveragePooling1D()(Positions()(x))
    model = keras.Model(x, layers.Dense(2)(y))
    message = (
        r"fails on inputs of .*32, 32.*`test_data=\(x, y\)`.*representative_data=x"
    )
    with pytest.raises(ValueError, match=message):
        to_keras(model, tmp_path / "model.keras")


@pytest.mark.once
def test_the_report_compares_with_the_model_that_was_made_smaller(tmp_path):
    steps = map(layers.Dense, (80, 80, 3))
    model = mask_model(keras.Sequential([keras.Input((40,)), *steps]))
    prune(model, 0.75, granularity="filter")
    small = compact(model)
    own = to_keras(small, tmp_path / "own.keras")
    assert own.dense_bytes == own.bytes
    report = to_keras(small, tmp_path / "small.keras", dense=model)
    assert report.dense_bytes > 1.5 * report.bytes
    assert "100.0% of" not in str(report)
