import dataclasses
import fnmatch
import functools
import inspect
import itertools

import keras
import numpy as np
import pytest

from keras_lottery import models
from keras_lottery.keras_bridge.layers import get_masks, mask_model
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Layerwise
from keras_lottery.tickets.allocation.names import matches

# Weights and biases of the layers that the paper names, on its data sets.
PARAMETERS = {
    "lenet_300_100": 266_610,
    "lenet_5": 431_080,
    "conv_2": 4_301_642,
    "conv_4": 2_425_930,
    "conv_6": 2_262_602,
    "resnet_20": 274_042,
    "vgg_19": 20_046_026,
}
# Too large for every test; what they are made of is tested in
# `TestConvolutionalNetworks` and test_deep_models.py.
SMALL = [name for name in models.names() if name in PARAMETERS and name != "vgg_19"]


def build(name, seed=None):
    """A small one."""
    size = 16 if name == "lenet_5" else 8
    return models.get(name)(input_shape=(size, size, 1), seed=seed)


@functools.cache
def small(name):
    """A small one that no test changes."""
    return build(name, seed=1)


@functools.cache
def full_size(name):
    """As on the paper's data set, but for its weights: drawing millions takes long."""
    file = inspect.getmodule(models.get(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "glorot_normals", lambda seed: itertools.repeat("zeros"))
        return models.get(name)()


def kernels(model):
    return [np.asarray(w) for w in model.weights if w.name == "kernel"]


@pytest.mark.once
@pytest.mark.parametrize("name", PARAMETERS)
def test_size_is_the_papers(name):
    assert full_size(name).count_params() == PARAMETERS[name]


@pytest.mark.once
@pytest.mark.parametrize("name", SMALL)
class TestEveryModel:
    def test_seed_fixes_the_weights(self, name):
        made = small(name), build(name, seed=1), build(name, seed=2)
        for one, same, other in zip(*map(kernels, made), strict=True):
            np.testing.assert_array_equal(one, same)
            assert not np.array_equal(one, other)

    def test_initialisation_is_gaussian_glorot_with_zero_biases(self, name):
        model = small(name)
        kernel = max(kernels(model), key=np.size)
        *field, fan_in, fan_out = kernel.shape
        deviation = np.sqrt(2 / (np.prod(field) * (fan_in + fan_out)))
        assert kernel.std() == pytest.approx(deviation, rel=0.02)
        # A uniform distribution would end at 1.73 deviations.
        assert np.abs(kernel).max() > 2 * deviation
        assert not any(np.any(w) for w in model.weights if w.name == "bias")

    def test_outputs_logits_and_is_uncompiled(self, name):
        model = small(name)
        assert not model.compiled
        assert model.output_shape == (None, 10)
        assert model.get_layer("output").activation is keras.activations.linear

    def test_each_prunable_layer_has_one_rate(self, name):
        masks = get_masks(mask_model(small(name)))
        rates = models.recipe(name).rates
        matching = {
            weight: [p for p in rates if fnmatch.fnmatch(weight, f"{p}/kernel")]
            for weight in masks
        }
        assert len(masks) == len(kernels(small(name)))
        assert all(len(patterns) == 1 for patterns in matching.values()), matching

    def test_evaluations_fall_between_executions(self, name):
        recipe = models.recipe(name)
        assert recipe.eval_freq % recipe.steps_per_execution == 0

    def test_is_found_by_name_and_function(self, name):
        builder = models.get(name)
        assert builder is getattr(models, name)
        assert models.get(builder) is builder
        assert models.recipe(builder) is models.recipe(name)
        assert list(inspect.signature(builder).parameters) == [
            "input_shape",
            "classes",
            "seed",
            *(["augment"] if models.recipe(name).augment else []),
        ]


@pytest.mark.once
@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5", "conv_2", "resnet_20"])
def test_trains_by_its_recipe(name):
    recipe = models.recipe(name)
    model = models.compile_model(build(name, seed=0), recipe)
    assert model.optimizer.name == recipe.optimizer
    assert float(model.optimizer.learning_rate) == pytest.approx(recipe.learning_rate)
    if keras.backend.backend() == "tensorflow":
        # Tracing takes longer than these few steps.
        model.run_eagerly, model.jit_compile = True, False
    x = np.random.default_rng(0).random((20, *model.input_shape[1:]), np.float32)
    y = np.arange(20) % 10
    history = model.fit(x, y, batch_size=20, epochs=3, verbose=0)
    assert int(model.optimizer.iterations) == 3
    assert history.history["loss"][-1] < history.history["loss"][0]


@pytest.mark.parametrize("name", ["lenet_300_100", "resnet_20"])
def test_unseeded_weights_differ_and_follow_the_global_seed(name):
    keras.utils.set_random_seed(0)
    one, other = kernels(build(name))[0], kernels(build(name))[0]
    keras.utils.set_random_seed(0)
    np.testing.assert_array_equal(kernels(build(name))[0], one)
    assert not np.array_equal(one, other)


@pytest.mark.once
def test_layers_of_one_shape_start_from_different_weights():
    *_, first, second, _ = kernels(small("conv_6"))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


@pytest.mark.once
def test_any_number_of_classes_and_flat_inputs():
    model = models.lenet_300_100(input_shape=(7,), classes=3)
    assert model.output_shape == (None, 3)


@pytest.mark.once
def test_recipes_are_the_papers():
    settings = {
        name: (r.optimizer, r.learning_rate, r.batch_size, r.steps, r.eval_freq)
        for name in PARAMETERS
        for r in [models.recipe(name)]
    }
    assert settings["lenet_300_100"] == ("adam", 1.2e-3, 60, 50_000, 100)
    assert settings["conv_2"] == ("adam", 2e-4, 60, 20_000, 100)
    assert settings["conv_4"] == ("adam", 3e-4, 60, 25_000, 100)
    assert settings["conv_6"] == ("adam", 3e-4, 60, 30_000, 100)
    assert models.recipe("lenet_300_100").rates == {"hidden_*": 0.2, "output": 0.1}
    assert models.recipe("conv_4").rates["conv_*"] == 0.1
    assert models.recipe("conv_6").rates["conv_*"] == 0.15
    assert settings["resnet_20"] == ("sgd", 0.01, 128, 30_000, 100)
    assert settings["vgg_19"] == ("sgd", 0.01, 64, 112_480, 100)
    assert models.recipe("vgg_19").left_alone == ("output",)
    augmented = {name for name in PARAMETERS if models.recipe(name).augment}
    assert augmented == {"resnet_20", "vgg_19"}


@pytest.mark.once
def test_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        models.recipe("conv_2").steps = 1


@pytest.mark.once
def test_small_images_are_refused_by_lenet_5():
    with pytest.raises(ValueError, match=r"16x16.*Received: input_shape=\(8, 8, 1\)"):
        models.lenet_5(input_shape=(8, 8, 1))


@pytest.mark.once
@pytest.mark.parametrize("find", [models.get, models.recipe])
def test_unknown_name_lists_the_choices(find):
    with pytest.raises(ValueError, match=r"lenet_300_100.*Received: model='lenet'"):
        find("lenet")


@pytest.mark.once
def test_recipe_of_an_unknown_function_lists_the_choices():
    with pytest.raises(ValueError, match="lenet_300_100"):
        models.recipe(lambda: None)


# The paper's shares of weights left, in %, after so many rounds. (Those of the networks
# without normalisation are in tests/search/test_search.py.)
GRIDS = {
    "resnet_20": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    "vgg_19": {12: 6.9, 15: 3.5, 19: 1.5},
}


@pytest.mark.once
@pytest.mark.parametrize("name", GRIDS)
def test_rounds_leave_the_papers_shares_of_weights(name):
    shapes = {
        f"{layer.name}/kernel": tuple(layer.kernel.shape)
        for layer in full_size(name).layers
        if hasattr(layer, "kernel")
    }
    masks = Masks.dense(shapes)
    rates = models.recipe(name).rates
    highest = max(rates.values())
    allocation = Layerwise(rates, highest)
    for rounds, percent in GRIDS[name].items():
        sparsity = allocation.total_sparsity(1 - (1 - highest) ** rounds, masks)
        assert round(100 * (1 - sparsity), 1) == percent


@pytest.mark.once
class TestConvolutionalNetworks:
    def test_shortcuts_and_output_are_left_alone(self):
        masks = get_masks(mask_model(full_size("resnet_20")))
        exclude = models.recipe("resnet_20").left_alone
        left = [n for n in masks if any(matches(n, pattern) for pattern in exclude)]
        assert sum(masks[name].size for name in left) == 2560 + 640

    def test_depths_that_do_not_exist_are_refused(self):
        with pytest.raises(ValueError, match="Received: depth=18"):
            models.resnet(18)

    def test_vgg_has_a_block_for_each_number(self):
        model = models.vgg((1, 2), width=4, input_shape=(8, 8, 1), seed=0)
        shapes = [kernel.shape for kernel in kernels(model)]
        assert shapes == [(3, 3, 1, 4), (3, 3, 4, 8), (3, 3, 8, 8), (8, 10)]
        again = models.vgg((1, 2), width=4, input_shape=(8, 8, 1), seed=0)
        np.testing.assert_array_equal(kernels(model)[0], kernels(again)[0])

    def test_augmentation_changes_images_in_training_alone(self):
        model = models.vgg((1,), 2, (8, 8, 3), seed=0, augment=True)
        layers = [model.get_layer(name) for name in ("move", "mirror")]
        x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
        still = moved = x
        for layer in layers:
            still = np.asarray(layer(still, training=False))
            moved = np.asarray(layer(moved, training=True))
        np.testing.assert_array_equal(still, x)
        assert not np.array_equal(moved, x)
        # Pixels move whole: there are no others, but for the empty margin.
        assert set(moved.ravel()) <= {*x.ravel(), 0}


def lenet():
    return build("lenet_300_100")


class TestSteps:
    def test_rates_rise_and_drop(self):
        steps = models.Steps(0.1, drops=(20, 30), warm_up=10)
        rates = [float(steps(step)) for step in (0, 5, 10, 19, 20, 29, 30)]
        expected = [0, 0.05, 0.1, 0.1, 0.01, 0.01, 0.001]
        assert rates == pytest.approx(expected)

    def test_its_config_gives_it_again(self):
        steps = models.Steps(0.1, drops=(20,), warm_up=10)
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(steps)
        )
        assert again.get_config() == steps.get_config()

    def test_a_recipe_makes_one(self):
        recipe = dataclasses.replace(
            models.recipe("resnet_20"), warm_up=10, weight_decay=1e-3
        )
        model = models.compile_model(lenet(), recipe)
        assert float(model.optimizer.learning_rate) == 0
        config = model.optimizer.get_config()
        assert config["momentum"] == 0.9
        assert config["weight_decay"] == pytest.approx(1e-2)
        assert tuple(config["learning_rate"]["config"]["drops"]) == (20_000, 25_000)

    def test_the_decay_is_that_of_the_penalty(self):
        # Without gradients, momentum would sum λ w up to λ w / (1 - momentum).
        recipe = dataclasses.replace(
            models.recipe("lenet_300_100"),
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=1e-2,
            momentum=0.9,
        )
        optimizer = models.compile_model(lenet(), recipe).optimizer
        weight = keras.Variable([1.0])
        optimizer.build([weight])
        optimizer.apply([keras.ops.zeros(1)], [weight])
        assert float(weight[0]) == pytest.approx(1 - 0.1 * 1e-2 / (1 - 0.9))

    @pytest.mark.parametrize("optimizer", ["adam", "AdamW"])
    def test_other_optimizers_decay_weights_as_they_do(self, optimizer):
        recipe = dataclasses.replace(
            models.recipe("lenet_300_100"), weight_decay=1e-2, momentum=0.9
        )
        model = models.compile_model(lenet(), recipe, optimizer)
        assert model.optimizer.weight_decay == 1e-2

    @pytest.mark.parametrize("rate", [1, np.float32(1), np.int64(1)])
    def test_any_number_warms_up_and_drops(self, rate):
        recipe = dataclasses.replace(models.recipe("resnet_20"), warm_up=10)
        model = models.compile_model(lenet(), recipe, learning_rate=rate)
        schedule = model.optimizer.get_config()["learning_rate"]["config"]
        assert schedule["learning_rate"] == 1.0
        assert (tuple(schedule["drops"]), schedule["warm_up"]) == ((20_000, 25_000), 10)


@pytest.mark.once
class TestCompileModel:
    recipe = models.recipe("lenet_300_100")

    def test_optimizer_and_learning_rate_can_be_replaced(self):
        model = models.compile_model(
            lenet(), self.recipe, optimizer="sgd", learning_rate=0.5
        )
        assert isinstance(model.optimizer, keras.optimizers.SGD)
        assert float(model.optimizer.learning_rate) == 0.5

    def test_learning_rate_may_be_a_schedule(self):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
        model = models.compile_model(lenet(), self.recipe, learning_rate=schedule)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
        assert model.optimizer.get_config()["learning_rate"]["config"] == (
            schedule.get_config()
        )

    def test_unknown_optimizer_is_refused(self):
        with pytest.raises(ValueError, match=r"'adam', .*Received: optimizer='adma'"):
            models.compile_model(lenet(), self.recipe, "adma")

    def test_optimizer_object_is_used_as_it_is(self):
        optimizer = keras.optimizers.Nadam(0.25)
        model = models.compile_model(lenet(), self.recipe, optimizer)
        assert model.optimizer is optimizer

    def test_optimizer_object_and_learning_rate_are_refused(self):
        with pytest.raises(ValueError, match=r"learning_rate=0\.1"):
            models.compile_model(
                lenet(),
                self.recipe,
                optimizer=keras.optimizers.SGD(),
                learning_rate=0.1,
            )

    def test_speed_settings_come_from_the_recipe(self):
        model = models.compile_model(lenet(), self.recipe)
        assert model.steps_per_execution == 100
        assert model.jit_compile is True

    def test_nothing_is_compiled_on_torch(self, monkeypatch):
        """Which would ask for a compiler of C++."""
        monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
        model = models.compile_model(lenet(), self.recipe)
        assert model.steps_per_execution == 1
        assert not model.jit_compile
