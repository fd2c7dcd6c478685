"""The deep networks that are built without drawing weights: sizes and recipes."""

import fnmatch
import inspect
import itertools

import numpy as np
import pytest

from keras_lottery import models

pytestmark = pytest.mark.once

# Trained parameters on CIFAR-10, and the side of the image before the last pooling.
SIZES = {
    # He et al. 2016, table 6: 0.85M, without projections.
    "resnet_56": (855_770, 8),
    "vgg_11": (9_228_362, 2),
    # Sandler et al. 2018: 3.5M with 1,000 classes, whose output has 1.27M more.
    "mobilenet_v2": (2_236_682, 4),
}
# Rate, batch, steps, drops, decay.
RECIPES = {
    "resnet_56": (0.1, 128, 63_882, (31_941, 47_736), 2e-4),
    "vgg_11": (0.1, 128, 52_650, (28_080, 42_120), 1e-4),
    "mobilenet_v2": (0.1, 128, 52_650, (28_080, 42_120), 1e-4),
}
LEFT_ALONE = {
    "resnet_56": ("shortcut_*", "output"),
    "vgg_11": ("conv_1",),
    "mobilenet_v2": ("stem",),
}


@pytest.mark.parametrize("name", SIZES)
def test_size_names_and_recipe(name, monkeypatch):
    file = inspect.getmodule(models.get(name))
    monkeypatch.setattr(file, "glorot_normals", lambda seed: itertools.repeat("zeros"))
    model = models.get(name)()
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert (trained, model.get_layer("pool").input.shape[1]) == SIZES[name]
    assert model.output_shape == (None, 10)
    recipe = models.recipe(models.get(name))
    assert recipe.augment
    assert 0 < recipe.drops[0] < recipe.drops[1] < recipe.steps
    assert (recipe.optimizer, recipe.momentum) == ("sgd", 0.9)
    settings = recipe.learning_rate, recipe.batch_size, recipe.steps, recipe.drops
    assert (*settings, recipe.weight_decay) == RECIPES[name]
    assert recipe.left_alone == LEFT_ALONE[name]
    norms = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    assert norms and {norm.momentum for norm in norms} == {0.9}
    layers = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    for layer in layers:
        assert sum(fnmatch.fnmatch(layer, pattern) for pattern in recipe.rates) == 1
    for pattern in recipe.rates:
        assert fnmatch.filter(layers, pattern), pattern


@pytest.mark.parametrize("width", [4, 16])
def test_a_resnet_has_as_many_filters_as_asked_for(width):
    model = models.resnet(8, (8, 8, 3), width=width)
    kernels = {v.path: v.shape for v in model.weights if v.path.endswith("/kernel")}
    filters = [kernels[f"conv_{index}/kernel"][-1] for index in range(1, 8)]
    assert filters == [width] * 3 + [2 * width] * 2 + [4 * width] * 2
    assert kernels["shortcut_2/kernel"] == (1, 1, 2 * width, 4 * width)
    # Directories of searches know their networks by name.
    assert model.name == ("resnet_8" if width == 16 else "resnet_8_width_4")


def test_mobilenet_can_augment_its_images():
    plain, augmented = (
        models.mobilenet([(1, 4, 1, 1)], 4, 8, (8, 8, 3), seed=0, augment=augment)
        for augment in (False, True)
    )
    names, others = (
        # The input's name has a number.
        [layer.name for layer in model.layers[1:]]
        for model in (plain, augmented)
    )
    assert others == ["move", "mirror", *names]
