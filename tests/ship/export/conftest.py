import json
import os

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.papers.models import lenet_300_100
from keras_lottery.pruning import prune
from keras_lottery.tickets import Ticket
from tests.models_zoo import as_array


@pytest.fixture(scope="session")
def lenet():
    """LeNet-300-100, masked, 95 % of its weights pruned."""
    model = mask_model(lenet_300_100(seed=0))
    prune(model, 0.95)
    return model


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).random((100, 28, 28, 1), dtype="float32")


@pytest.fixture(scope="session")
def test_data(lenet, images):
    """Three of four images bear the class that the model gives them."""
    classes = as_array(lenet(images)).argmax(axis=-1)
    classes[::4] = (classes[::4] + 1) % 10
    return images, classes


@pytest.fixture
def tiny():
    """An ordinary model of 16 x 8 and 8 x 3 weights, half of them zero."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax")]
    )
    for layer in model.layers:
        kernel = layer.get_weights()[0]
        kernel[::2] = 0
        layer.kernel.assign(kernel)
    return model


@pytest.fixture
def ticket(tiny):
    """A trained ticket, half of its weights pruned."""
    model = mask_model(tiny)
    prune(model, 0.5)
    return Ticket(
        get_masks(model),
        get_state(mask_model(tiny)),
        trained=get_state(model),
        architecture=json.dumps(keras.saving.serialize_keras_object(model)),
    )


@pytest.fixture
def nan_model(tiny):
    tiny.layers[1].kernel.assign(np.full((8, 3), np.nan))
    return tiny


@pytest.fixture(params=["list", "dict"])
def two_by_two(request):
    """Two inputs, one of integers, and two outputs of one shape that differ."""
    keras.utils.set_random_seed(0)
    zeta = keras.Input((4,), name="zeta")
    alpha = keras.Input((5,), dtype="int32", name="alpha")
    words = layers.Flatten()(layers.Embedding(7, 8)(alpha))
    features = layers.Concatenate()([zeta, words])
    first = layers.Dense(3, name="second")(features)
    second = layers.Dense(3, name="first")(features)
    if request.param == "list":
        return keras.Model([zeta, alpha], [first, second])
    return keras.Model({"zeta": zeta, "alpha": alpha}, {"y": first, "x": second})


@pytest.fixture
def two_inputs():
    rng = np.random.default_rng(0)
    return {
        "alpha": rng.integers(0, 7, (20, 5)).astype("int32"),
        "zeta": rng.random((20, 4), dtype="float32"),
    }


@pytest.fixture
def left_over():
    """The names in a folder."""
    return lambda folder: sorted(os.listdir(folder))
