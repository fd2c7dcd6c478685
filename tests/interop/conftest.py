"""TFMOT, imported once and without its side effects; the tests skip without it."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def tfmot():
    for package in ("tensorflow_model_optimization", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from keras_lottery.interop.tfmot import import_tfmot

    return import_tfmot()


@pytest.fixture(scope="session")
def tk(tfmot):
    """Keras 2."""
    import tf_keras

    return tf_keras
