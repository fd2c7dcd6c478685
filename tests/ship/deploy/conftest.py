import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl


@pytest.fixture(scope="session")
def images():
    """Eight by eight pixels, in three classes."""
    rng = np.random.default_rng(0)
    return rng.random((40, 8, 8, 1), dtype="float32"), rng.integers(0, 3, 40)


@pytest.fixture(scope="session")
def net():
    """A plain net, dense."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(64, "relu", name="hidden"),
            layers.Dense(3, name="output"),
        ]
    )


@pytest.fixture(scope="session")
def blocks(net):
    """Masked, 90 % pruned in blocks."""
    model = kl.mask_model(net)
    kl.prune(model, 0.9, granularity="block_1x4")
    return model


@pytest.fixture(scope="session")
def files(net, blocks, tmp_path_factory):
    """A dense, a sparse and a quantised .tflite file, and a SavedModel."""
    folder = tmp_path_factory.mktemp("files")
    kl.export.to_litert(net, folder / "dense.tflite")
    kl.export.to_litert(blocks, folder / "blocks.tflite")
    kl.export.to_litert(net, folder / "dynamic.tflite", quantize="dynamic")
    kl.export.to_saved_model(net, folder / "saved_model")
    return folder
