"""Subclassed models have no symbolic inputs: files get them."""

import keras
import numpy as np
import pytest

import keras_lottery as kl
from tests.models_zoo import as_array


@keras.saving.register_keras_serializable("test_subclassed")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(8, "relu")
        self.head = keras.layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))


@keras.saving.register_keras_serializable("test_subclassed")
class Two(Net):
    def call(self, a, b):
        return super().call(a + b)


X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


@pytest.fixture
def model():
    model = Net()
    model(X)
    model = kl.mask_model(model)
    kl.prune(model, 0.5)
    return model


def test_keras_file(model, tmp_path):
    report = kl.export.to_keras(model, tmp_path / "net.keras")
    assert report.sparsity == 0.5
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(as_array(loaded(X)), as_array(model(X)))


@pytest.mark.tensorflow
def test_saved_model_and_litert(model, tmp_path):
    for report in (
        kl.export.to_saved_model(model, tmp_path / "net"),
        kl.export.to_litert(model, tmp_path / "net.tflite"),
    ):
        assert report.sparsity == 0.5
        assert report.max_difference < 1e-5


def test_several_arguments_are_refused_with_the_remedy(tmp_path):
    model = Two()
    model(X, X)
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, model\(inputs\)\)"):
        kl.export.to_keras(model, tmp_path / "net.keras")
    assert not list(tmp_path.iterdir())
