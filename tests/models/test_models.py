import dataclasses
import fnmatch
import inspect

import keras
import numpy as np
import pytest

from keras_lottery import models
from keras_lottery.layers import get_masks, mask_model

# Weights and biases of the layers that the paper names, on its data sets.
PARAMETERS = {
    "lenet_300_100": 266_610,
    "lenet_5": 431_080,
    "conv_2": 4_301_642,
    "conv_4": 2_425_930,
    "conv_6": 2_262_602,
}


def build(name, seed=None):
    """A small one."""
    size = 16 if name == "lenet_5" else 8
    return models.get(name)(input_shape=(size, size, 1), seed=seed)


def kernels(model):
    return [np.asarray(w) for w in model.weights if w.name == "kernel"]


@pytest.mark.parametrize("name", models.names())
class TestEveryModel:
    def test_size_is_the_papers(self, name):
        assert models.get(name)().count_params() == PARAMETERS[name]

    def test_seed_fixes_the_weights(self, name):
        for one, same, other in zip(
            *(kernels(build(name, seed)) for seed in (1, 1, 2)), strict=True
        ):
            np.testing.assert_array_equal(one, same)
            assert not np.array_equal(one, other)

    def test_unseeded_weights_differ_and_follow_the_global_seed(self, name):
        keras.utils.set_random_seed(0)
        one, other = kernels(build(name))[0], kernels(build(name))[0]
        keras.utils.set_random_seed(0)
        np.testing.assert_array_equal(kernels(build(name))[0], one)
        assert not np.array_equal(one, other)

    def test_initialisation_is_gaussian_glorot_with_zero_biases(self, name):
        model = build(name, seed=0)
        kernel = max(kernels(model), key=np.size)
        *field, fan_in, fan_out = kernel.shape
        deviation = np.sqrt(2 / (np.prod(field) * (fan_in + fan_out)))
        assert kernel.std() == pytest.approx(deviation, rel=0.02)
        # A uniform distribution would end at 1.73 deviations.
        assert np.abs(kernel).max() > 2 * deviation
        assert not any(np.any(w) for w in model.weights if w.name == "bias")

    def test_outputs_logits_and_is_uncompiled(self, name):
        model = build(name)
        assert not model.compiled
        assert model.output_shape == (None, 10)
        assert model.get_layer("output").activation is keras.activations.linear

    def test_each_prunable_layer_has_one_rate(self, name):
        masks = get_masks(mask_model(build(name)))
        rates = models.recipe(name).rates
        matching = {
            weight: [p for p in rates if fnmatch.fnmatch(weight, f"{p}/kernel")]
            for weight in masks
        }
        assert len(masks) == len(kernels(build(name)))
        assert all(len(patterns) == 1 for patterns in matching.values()), matching

    def test_trains_by_its_recipe(self, name):
        recipe = models.recipe(name)
        model = models.compile_model(build(name, seed=0), recipe)
        assert model.optimizer.name == recipe.optimizer
        assert float(model.optimizer.learning_rate) == pytest.approx(
            recipe.learning_rate
        )
        x = np.random.default_rng(0).random((20, *model.input_shape[1:]), np.float32)
        y = np.arange(20) % 10
        before = model.evaluate(x, y, verbose=0)[0]
        model.fit(x, y, batch_size=20, epochs=5, verbose=0)
        assert int(model.optimizer.iterations) == 5
        assert model.evaluate(x, y, verbose=0)[0] < before

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
        ]


def test_layers_of_one_shape_start_from_different_weights():
    *_, first, second, _ = kernels(build("conv_6", seed=0))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_any_number_of_classes_and_flat_inputs():
    model = models.lenet_300_100(input_shape=(7,), classes=3)
    assert model.output_shape == (None, 3)


def test_recipes_are_the_papers():
    settings = {
        name: (r.optimizer, r.learning_rate, r.batch_size, r.steps, r.eval_freq)
        for name in models.names()
        for r in [models.recipe(name)]
    }
    assert settings["lenet_300_100"] == ("adam", 1.2e-3, 60, 50_000, 100)
    assert settings["conv_2"] == ("adam", 2e-4, 60, 20_000, 100)
    assert settings["conv_4"] == ("adam", 3e-4, 60, 25_000, 100)
    assert settings["conv_6"] == ("adam", 3e-4, 60, 30_000, 100)
    assert models.recipe("lenet_300_100").rates == {"hidden_*": 0.2, "output": 0.1}
    assert models.recipe("conv_4").rates["conv_*"] == 0.1
    assert models.recipe("conv_6").rates["conv_*"] == 0.15


def test_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        models.recipe("conv_2").steps = 1


def test_small_images_are_refused_by_lenet_5():
    with pytest.raises(ValueError, match=r"16x16.*Received: input_shape=\(8, 8, 1\)"):
        models.lenet_5(input_shape=(8, 8, 1))


@pytest.mark.parametrize("find", [models.get, models.recipe])
def test_unknown_name_lists_the_choices(find):
    with pytest.raises(ValueError, match=r"lenet_300_100.*Received: model='lenet'"):
        find("lenet")


def test_recipe_of_an_unknown_function_lists_the_choices():
    with pytest.raises(ValueError, match="lenet_300_100"):
        models.recipe(lambda: None)


class TestCompileModel:
    recipe = models.recipe("lenet_300_100")

    def test_optimizer_and_learning_rate_can_be_replaced(self):
        model = models.compile_model(
            build("lenet_300_100"), self.recipe, optimizer="sgd", learning_rate=0.5
        )
        assert isinstance(model.optimizer, keras.optimizers.SGD)
        assert float(model.optimizer.learning_rate) == 0.5

    def test_learning_rate_may_be_a_schedule(self):
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
        model = models.compile_model(
            build("lenet_300_100"), self.recipe, learning_rate=schedule
        )
        assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
        assert model.optimizer.get_config()["learning_rate"]["config"] == (
            schedule.get_config()
        )

    def test_unknown_optimizer_is_refused(self):
        with pytest.raises(ValueError, match=r"'adam', .*Received: optimizer='adma'"):
            models.compile_model(build("lenet_300_100"), self.recipe, "adma")

    def test_optimizer_object_is_used_as_it_is(self):
        optimizer = keras.optimizers.Nadam(0.25)
        model = models.compile_model(build("lenet_300_100"), self.recipe, optimizer)
        assert model.optimizer is optimizer

    def test_optimizer_object_and_learning_rate_are_refused(self):
        with pytest.raises(ValueError, match=r"learning_rate=0\.1"):
            models.compile_model(
                build("lenet_300_100"),
                self.recipe,
                optimizer=keras.optimizers.SGD(),
                learning_rate=0.1,
            )

    def test_speed_settings_come_from_the_recipe(self):
        model = models.compile_model(build("lenet_300_100"), self.recipe)
        assert model.steps_per_execution == 100
        assert model.jit_compile is True
