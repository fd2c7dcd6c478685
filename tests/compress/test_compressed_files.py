"""save_compressed and load_compressed: whole models, on disk."""

import random

import keras
import numpy as np
import pytest

from keras_lottery import CorruptedFileError
from keras_lottery.compress import load_compressed, save_compressed
from keras_lottery.compress.codec import encode
from keras_lottery.compress.file import _architecture
from keras_lottery.in_fit.callbacks import share_weights
from keras_lottery.keras_bridge.layers import (
    MaskedDense,
    get_masks,
    get_state,
    mask_model,
)
from tests.models_zoo import (
    ZOO,
    assert_equal,
    compiled,
    fit,
    mlp,
    outputs,
    pruned,
    scramble,
)


def shared(build=mlp, bits=2):
    model = pruned(scramble(build()))
    share_weights(model, bits)
    return model


@pytest.mark.once
@pytest.mark.parametrize("build", ZOO.values(), ids=ZOO)
def test_models_come_back_bit_for_bit(build, tmp_path):
    model = shared(build)
    save_compressed(model, tmp_path / "model.klc")
    again = load_compressed(tmp_path / "model.klc")
    assert_equal(list(get_state(model).values()), list(get_state(again).values()))
    assert get_state(model).keys() == get_state(again).keys()
    assert get_masks(model) == get_masks(again)
    np.testing.assert_array_equal(outputs(model), outputs(again))
    assert [layer.name for layer in model.layers] == [x.name for x in again.layers]
    assert [layer.trainable for layer in model.layers] == [
        layer.trainable for layer in again.layers
    ]


@pytest.mark.once
def test_a_model_without_shared_weights(tmp_path):
    model = pruned(scramble(mlp()))
    report = save_compressed(model, tmp_path / "model.klc")
    assert set(report.values.values()) == {None}
    assert "none: call `share_weights(model)` before" in str(report)
    assert_equal(
        list(get_state(model).values()),
        list(get_state(load_compressed(report.path)).values()),
    )


def test_a_trained_model_stays_trainable(tmp_path):
    model = compiled(shared())
    fit(model)
    save_compressed(model, tmp_path / "model.klc")
    again = load_compressed(tmp_path / "model.klc")
    assert not again.compiled
    masks = get_masks(again)
    fit(compiled(again))
    assert get_masks(again) == masks


def large():
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(100, name="a")])
    return scramble(model)


@pytest.mark.once
def test_the_report(tmp_path, capsys):
    model = pruned(large(), 0.95)
    share_weights(model, bits=4)
    report = save_compressed(model, tmp_path / "model.klc")
    assert report.bytes == (tmp_path / "model.klc").stat().st_size
    assert report.bytes < report.quantized_bytes < report.pruned_bytes
    assert report.pruned_bytes < report.dense_bytes
    assert report.dense_bytes > 4 * 30_100
    assert report.bytes < report.dense_bytes / 35
    assert report.values == {"a/kernel": 16}
    assert report.sparsity == 0.95
    text = capsys.readouterr().out
    assert text.strip() == str(report)
    for part in ("a/kernel 16", "95.00%", f"{report.bytes:,} bytes", "of dense"):
        assert part in text


@pytest.mark.once
def test_half_precision_of_the_rest(tmp_path):
    model = pruned(large(), 0.95)
    share_weights(model, bits=4)
    before = get_state(model)
    whole = save_compressed(model, tmp_path / "whole.klc")
    half = save_compressed(model, tmp_path / "half.klc", float16=True)
    assert 0 < whole.bytes - half.bytes < 2 * 100 + 8
    assert_equal(list(before.values()), list(get_state(model).values()))
    again = get_state(load_compressed(half.path))
    np.testing.assert_array_equal(again["a/kernel"], before["a/kernel"])
    assert again["a/bias"].dtype == "float32"
    np.testing.assert_array_equal(
        again["a/bias"], before["a/bias"].astype("float16").astype("float32")
    )


@pytest.mark.once
def test_what_does_not_fit_half_precision_is_named(tmp_path):
    model = shared()
    model.layers[0].bias.assign(np.full(6, 1e6))
    with pytest.raises(ValueError, match=r"`dense/bias` reaches 1e\+06"):
        save_compressed(model, tmp_path / "model.klc", float16=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_unmasked_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="mask_model"):
        save_compressed(mlp(), tmp_path / "model.klc")
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "model.klc"
    save_compressed(shared(), path)
    data = path.read_bytes()
    model = mlp()
    model.save(tmp_path / "model.keras")
    foreign = (tmp_path / "model.keras").read_bytes()
    for damaged in (b"", data[:-1], data[:40], data[:-1] + b"?", foreign):
        path.write_bytes(damaged)
        with pytest.raises(CorruptedFileError, match=r"model.klc.* damaged"):
            load_compressed(path)
    with pytest.raises(FileNotFoundError):
        load_compressed(tmp_path / "none.klc")


@pytest.mark.once
def test_a_limit_to_what_a_file_may_unfold_to(tmp_path):
    path = tmp_path / "model.klc"
    save_compressed(pruned(large()), path)
    with pytest.raises(CorruptedFileError, match="max_bytes=100000"):
        load_compressed(path, max_bytes=100_000)
    load_compressed(path, max_bytes=150_000)


@pytest.mark.once
def test_variables_of_another_model_are_refused(tmp_path, monkeypatch):
    from keras_lottery.compress import file

    path = tmp_path / "model.klc"
    other = file._architecture(mask_model(large()))
    monkeypatch.setattr(file, "_architecture", lambda model: other)
    save_compressed(shared(), path)
    with pytest.raises(CorruptedFileError, match="do not fit its own model"):
        load_compressed(path)


@pytest.mark.once
def test_layers_of_ones_own(tmp_path):
    @keras.saving.register_keras_serializable(package="test_compressed_files")
    class Double(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), Double()])
    model = pruned(scramble(model))
    save_compressed(model, tmp_path / "model.klc")
    again = load_compressed(tmp_path / "model.klc")
    np.testing.assert_array_equal(outputs(model), outputs(again))


def with_code():
    """A Lambda layer holds code: Keras asks for it to be allowed."""
    double = keras.layers.Lambda(lambda x: 2 * x, name="double")
    inner = keras.Sequential([keras.Input((8,)), double], name="inner")
    return keras.Sequential([keras.Input((4,)), MaskedDense(8), inner])


@pytest.mark.once
def test_a_model_that_would_not_come_back_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)layer 'inner/double' \(Lam.*regist"):
        save_compressed(with_code(), tmp_path / "model.klc")
    model = mask_model(mlp())
    with pytest.raises(ValueError, match=r"in \.klc"):
        save_compressed(model, tmp_path)
    assert not list(tmp_path.iterdir())
    state = random.getstate()
    save_compressed(model, tmp_path / "model.klc")
    assert random.getstate() == state


@pytest.mark.once
def test_python_code_in_a_file_is_refused(tmp_path, monkeypatch):
    from keras_lottery.compress import file

    monkeypatch.setattr(file, "_check_layers", lambda model, text: None)
    save_compressed(with_code(), tmp_path / "model.klc")
    with pytest.raises(CorruptedFileError, match="deserialization of a `Lambda`"):
        load_compressed(tmp_path / "model.klc")


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace('"units":2', '"units":3'),
            "do not fit its own model",
        ),
        (lambda text: text.replace('"units":6', '"units":-6'), "cannot build"),
        (lambda text: text.replace("units", "stinu"), "cannot build"),
        (lambda text: '{"class_name": "Foo"}', "cannot build"),
        (lambda text: "[1]", "cannot build"),
    ],
)
def test_architectures_of_other_sizes_and_none_are_refused(tmp_path, change, message):
    model = shared()
    text = change(_architecture(model))
    path = tmp_path / "model.klc"
    path.write_bytes(encode(text, get_state(model), get_masks(model)))
    with pytest.raises(CorruptedFileError, match=message):
        load_compressed(path)


@keras.saving.register_keras_serializable(package="test_compressed_files")
class Table(keras.layers.Layer):
    """Makes a variable of an array, as Keras would have no layer do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = keras.Variable(np.arange(8.0), name="table")

    def call(self, x):
        return x * self.table


@pytest.mark.once
def test_layers_that_make_variables_of_arrays(tmp_path):
    model = keras.Sequential([keras.Input((4,)), MaskedDense(8), Table()])
    save_compressed(model, tmp_path / "model.klc")
    again = load_compressed(tmp_path / "model.klc")
    np.testing.assert_array_equal(outputs(model), outputs(again))
