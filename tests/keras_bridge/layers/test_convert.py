"""From ordinary models to masked ones, and back."""

import pickle
import warnings

import cloudpickle
import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.internals.optimizers import undecayed
from keras_lottery.keras_bridge.layers import (
    MASKED_LAYERS,
    Masked,
    MaskedDense,
    get_masks,
    get_sparsity,
    get_state,
    is_masked,
    mask_model,
    strip_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.convert import fresh_optimizer, masked_by_default
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.search.setup import Options, Setup
from tests.models_zoo import (
    ZOO,
    arrays,
    as_array,
    assert_equal,
    branches,
    cases,
    cnn,
    compiled,
    fit,
    inputs,
    mlp,
    nested,
    outputs,
    pruned,
    pruned_weights,
    scramble,
)

# All kernels of the zoo but depthwise ones.
KERNELS = ("kernel", "recurrent_kernel", "pointwise_kernel")


def parts(model):
    """Its layers. An Input of two parts is two in a copy."""
    return [one for _, one in walk(model) if not isinstance(one, layers.InputLayer)]


def classes(model):
    return [class_of(layer) for layer in parts(model)]


@pytest.fixture(scope="module", params=cases(ZOO, ["cnn", "branches"]), ids=str)
def zoo(request):
    """A model, masked, masked with half of its weights pruned, and how to build it.

    Behind the masks, the weights are not zero.
    """
    model = scramble(ZOO[request.param]())
    return model, mask_model(model), scramble(pruned(model), seed=1), ZOO[request.param]


class TestEveryModel:
    def test_masking_changes_no_output(self, zoo):
        model, masked, half, _ = zoo
        np.testing.assert_array_equal(outputs(masked), outputs(model))
        assert not np.allclose(outputs(half), outputs(model))

    def test_all_that_has_a_masked_form_is_masked_and_nothing_else(self, zoo):
        model, masked, _, _ = zoo
        kinds = [
            MASKED_LAYERS[class_of(x)] if masked_by_default(x) else class_of(x)
            for x in parts(model)
        ]
        assert classes(masked) == kinds
        prunable = [x for _, x in walk(model) if masked_by_default(x)]
        weights = [weight for layer in prunable for weight in layer.weights]
        kernels = [np.prod(w.shape) for w in weights if w.name in KERNELS]
        assert get_masks(masked).size == sum(kernels)

    def test_stripping_bakes_the_zeros_into_ordinary_layers(self, zoo):
        model, _, half, _ = zoo
        plain = strip_masks(half)
        assert not is_masked(plain)
        assert classes(plain) == classes(model)
        np.testing.assert_array_equal(outputs(plain), outputs(half))
        state = get_state(plain)
        for name, mask in get_masks(half).items():
            assert not state[name][~mask].any()
            assert state[name][mask].all()

    def test_a_keras_file_holds_weights_and_masks(self, zoo, tmp_path):
        _, _, half, _ = zoo
        half.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert_equal(arrays(again), arrays(half))
        assert not pruned_weights(again).any()
        assert get_masks(again) == get_masks(half)
        np.testing.assert_array_equal(outputs(again), outputs(half))

    def test_a_weights_file_fits_another_build(self, zoo, tmp_path):
        _, _, half, build = zoo
        half.save_weights(tmp_path / "model.weights.h5")
        again = mask_model(build())
        again.load_weights(tmp_path / "model.weights.h5")
        assert get_masks(again) == get_masks(half)
        np.testing.assert_array_equal(outputs(again), outputs(half))

    def test_clones_and_configs_make_masked_models(self, zoo):
        _, _, half, _ = zoo
        for again in [
            keras.models.clone_model(half),
            type(half).from_config(half.get_config()),
        ]:
            assert not get_sparsity(again)
            again.set_weights(half.get_weights())
            assert get_masks(again) == get_masks(half)
            np.testing.assert_array_equal(outputs(again), outputs(half))

    def test_masking_again_keeps_the_masks(self, zoo):
        _, _, half, _ = zoo
        again = mask_model(half)
        assert get_masks(again) == get_masks(half)
        np.testing.assert_array_equal(outputs(again), outputs(half))


def test_the_given_model_is_left_untouched():
    """Also on JAX, where a training takes the buffers that it is given."""
    model = compiled(scramble(cnn()))
    config, before, state = model.get_config(), arrays(model), get_state(model)
    kept = {name: array.copy() for name, array in state.items()}
    masked = mask_model(model)
    fit(masked)
    strip_masks(masked)
    assert model.get_config() == config
    assert_equal(arrays(model), before)
    assert_equal(state.values(), kept.values())
    assert model.optimizer.iterations == 0
    trained = arrays(masked)
    assert not np.array_equal(trained[0], before[0])
    fit(model)
    assert_equal(arrays(masked), trained)


def same_loss(y, prediction):
    return keras.ops.mean((y - prediction) ** 2)


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """Not registered with Keras."""

    def __call__(self, step):
        return 0.1 / (keras.ops.cast(step, "float32") + 1)

    def get_config(self):
        return {}


# On torch, one execution has one step.
STEPS = 1 if keras.backend.backend() == "torch" else 2


@pytest.mark.parametrize("convert", [mask_model, lambda m: strip_masks(mask_model(m))])
def test_a_compiled_model_gives_one_that_is_compiled_alike(convert):
    model = mlp()
    model.compile(
        keras.optimizers.SGD(Decay(), momentum=0.5),
        same_loss,
        metrics=["mae", keras.metrics.MeanSquaredError()],
        steps_per_execution=STEPS,
    )
    model.optimizer.iterations.assign(3)
    new = convert(model)
    assert isinstance(new.optimizer, keras.optimizers.SGD)
    assert isinstance(new.optimizer._learning_rate, Decay)
    assert new.optimizer.momentum == 0.5
    assert new.optimizer.iterations == 0
    assert new.loss is same_loss
    assert new.steps_per_execution == STEPS
    x = inputs(model)
    logs = model.evaluate(x, np.ones((4, 2)), verbose=0, return_dict=True)
    again = new.evaluate(x, np.ones((4, 2)), verbose=0, return_dict=True)
    assert again == pytest.approx(logs)
    assert set(logs) == {"loss", "mae", "mean_squared_error"}


def pickled(model):
    setup = Setup(model, None, 0, "fit", None, Options(steps=1))
    return pickle.loads(cloudpickle.dumps(setup)).source


@pytest.mark.parametrize(
    "convert", [mask_model, lambda m: strip_masks(mask_model(m)), pickled]
)
def test_a_copy_excludes_the_same_weights_from_weight_decay(convert):
    model = mlp()
    optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([model.layers[-1].kernel], ["bias"])
    model.compile(optimizer, "mse")
    model.trainable_variables[1].assign([1.0] * 6)
    new = convert(model)
    before = [read(variable) for variable in new.trainable_variables]
    zeros = [keras.ops.zeros(variable.shape) for variable in new.trainable_variables]
    new.optimizer.build(new.trainable_variables)
    new.optimizer.apply(zeros)
    shares = 0.5, 1, 1, 1
    for share, old, variable in zip(
        shares, before, new.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(read(variable), share * old)


@pytest.mark.once
def test_names_that_do_not_decay_are_described_in_one_order():
    """Keras joins them in the order of a set, which differs between processes."""
    found = set()
    for pattern in ("bias|gamma|beta", "gamma|beta|bias"):
        optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=[pattern])
        ((_, text),) = undecayed(optimizer, {})
        found.add(text)
    assert found == {"beta|bias|gamma"}
    assert undecayed(fresh_optimizer(optimizer), {}) == undecayed(optimizer, {})
    optimizer.exclude_from_weight_decay(var_names=["(b|a)c"])
    assert undecayed(optimizer, {}) == [([], "(b|a)c")]


def test_a_model_that_is_not_compiled_gives_one_that_is_not():
    assert not mask_model(mlp()).compiled


def test_frozen_layers_stay_frozen():
    model = nested()
    inner = model.layers[1]
    inner.trainable = False
    inner.layers[1].layers[0].trainable = True
    masked = mask_model(model, lambda layer: True)
    for new in [masked, strip_masks(masked)]:
        for one, other in zip(parts(model), parts(new), strict=True):
            assert one.trainable == other.trainable
        names = [weight.path for weight in model.trainable_weights]
        assert [weight.path for weight in new.trainable_weights] == names


def test_frozen_layers_are_masked_where_they_are_named():
    model = mlp()
    model.layers[0].trainable = False
    with pytest.warns(UserWarning, match=r"frozen, and stay dense: dense\. Name them"):
        masked = mask_model(model)
    assert list(get_masks(masked)) == ["dense_1/kernel"]
    for prunable in ("dense*", ["dense", "dense_1"], lambda layer: True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(get_masks(mask_model(model, prunable))) == 2
    model.trainable = False
    with pytest.raises(ValueError, match="frozen layers have to be named"):
        mask_model(model)


@pytest.mark.parametrize(
    ("prunable", "expected"),
    [
        ("output", ["output"]),
        ("dense*", ["dense", "functional/dense"]),
        (["output", "functional/*"], ["functional/dense", "output"]),
        (lambda layer: layer.name == "output", ["output"]),
        (None, ["dense", "functional/dense", "output"]),
    ],
)
def test_prunable_chooses_layers(prunable, expected):
    x = keras.Input((4,))
    inner = keras.Model(x, layers.Dense(4)(x))
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="output")(inner(layers.Dense(4)(x))))
    # Layers without names of their own are numbered by the process.
    for layer in (model.layers[1], inner.layers[1]):
        layer.name = "dense"
    masked = mask_model(model, prunable)
    paths = [path for path, layer in walk(masked) if isinstance(layer, Masked)]
    assert sorted(paths) == sorted(expected)


def test_more_layers_may_be_masked_later():
    model = pruned(keras.Sequential([mlp(), layers.Dense(3, name="new")]))
    plain = strip_masks(model)
    first = mask_model(plain, "new")
    both = mask_model(first, "*dense*")
    assert list(get_masks(mask_model(first))) == ["new/kernel"]
    assert len(get_masks(both)) == 3


@pytest.mark.parametrize("prunable", [None, lambda layer: False])
def test_nothing_to_prune_is_an_error_that_lists_the_layers(prunable):
    build = (
        mlp
        if prunable
        else lambda: keras.Sequential(
            [keras.Input((4,)), layers.LayerNormalization(name="norm"), layers.ReLU()]
        )
    )
    model = build()
    with pytest.raises(ValueError, match="No layer to prune") as error:
        mask_model(model, prunable)
    for path, layer in walk(model):
        assert f"{path} ({type(layer).__name__})" in str(error.value)


class MyDense(layers.Dense):
    """A user's own layer has no masked form."""


@pytest.mark.parametrize("name", ["typo", "norm", "mine", ["output", "typo"]])
def test_names_that_match_nothing_prunable_are_an_error(name):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.LayerNormalization(name="norm"),
            MyDense(4, name="mine"),
            layers.Dense(2, name="output"),
        ]
    )
    with pytest.raises(ValueError, match="matches no layer") as error:
        mask_model(model, name)
    culprit = name if isinstance(name, str) else name[-1]
    for text in [repr(culprit), "mine (MyDense)", "output (Dense)"]:
        assert text in str(error.value)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_models_that_cannot_be_converted_say_why():
    subclassed, hollow = Subclassed(), Subclassed()
    with pytest.warns(UserWarning, match="has unbuilt state"):
        hollow.build((None, 4))  # Of a class without `build`, it does nothing.
    for model, message in [
        (hollow, "a built model(.|\n)*call it once on data"),
        ("mlp", "a Keras model"),
        (keras.Sequential([layers.Dense(2)]), "a built model"),
        (subclassed, "a built model"),
    ]:
        for convert in (mask_model, strip_masks):
            with pytest.raises(ValueError, match=f"Expected .*{message}"):
                convert(model)


def test_masked_layers_may_be_used_directly():
    model = keras.Sequential([keras.Input((4,)), MaskedDense(3), MaskedDense(2)])
    assert is_masked(model)
    assert list(get_masks(model)) == ["masked_dense/kernel", "masked_dense_1/kernel"]
    assert not is_masked(strip_masks(model))


def test_random_generators_keep_their_state():
    model = mlp()
    for _ in range(3):
        model(inputs(model), training=True)
    masked = mask_model(model)
    np.testing.assert_array_equal(
        *(as_array(m(inputs(model), training=True)) for m in (model, masked))
    )


def test_branches_keep_their_order():
    masked = mask_model(scramble(branches()))
    assert [x.dtype for x in masked.inputs] == ["float32", "int32"]
    assert len(masked.outputs) == 2


def test_variables_that_are_frozen_one_by_one_stay_frozen():
    model = mlp()
    model.layers[0].bias.trainable = False
    for new in [mask_model(model), strip_masks(mask_model(model))]:
        assert not new.layers[0].bias.trainable
        assert len(new.trainable_weights) == len(model.trainable_weights) == 3


def test_kernels_that_stay_dense_are_named():
    model = keras.Sequential(
        [
            keras.Input((2, 4, 4, 3)),
            layers.ConvLSTM2D(2, 2),
            layers.Flatten(),
            MyDense(4, name="mine"),
            layers.Dense(2, name="output"),
        ]
    )
    with pytest.warns(UserWarning, match="no masked form") as caught:
        masked = mask_model(model)
    (warning,) = caught
    assert list(get_masks(masked)) == ["output/kernel"]
    assert "ConvLSTM" in str(warning.message)
    assert "mine (MyDense)" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask_model(masked)
        mask_model(model, "output")


@keras.saving.register_keras_serializable("tests")
class Unnamed(layers.Layer):
    """Its variables have no names, as those of ConvNeXt."""

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="normal")
        self.shift = self.add_weight(shape=shape[-1:], initializer="normal")

    def call(self, x):
        return x * self.scale + self.shift


@pytest.mark.once
def test_variables_without_names_are_told_apart_by_their_order(tmp_path):
    steps = layers.Dense(3), Unnamed(name="one"), Unnamed(name="two"), layers.Dense(2)
    model = keras.Sequential([keras.Input((4,)), *steps])
    masked = mask_model(model)
    np.testing.assert_array_equal(outputs(masked), outputs(model))
    assert "two/variable_1" in get_state(masked)
    assert get_state(masked).keys() == get_state(mask_model(masked)).keys()
    masked.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(strip_masks(again)), outputs(model))


@pytest.mark.once
def test_names_that_tensorflow_refuses_are_refused_before_any_training():
    dense = layers.Dense(3, name="плотный")
    with pytest.raises(ValueError, match="Give the layers other names") as caught:
        mask_model(keras.Sequential([keras.Input((4,)), dense]))
    assert "плотный" in str(caught.value)


@pytest.mark.once
def test_depthwise_kernels_are_masked_only_where_they_are_chosen():
    steps = (
        layers.Conv2D(4, 1, name="point"),
        layers.DepthwiseConv2D(2, name="depthwise"),
        layers.Conv2D(4, 2, groups=4, name="by_channel"),
        layers.Conv2D(4, 2, groups=2, name="by_group"),
        layers.SeparableConv2D(3, 2, name="separable"),
    )
    model = keras.Sequential([keras.Input((9, 9, 2)), *steps])
    assert list(get_masks(mask_model(model))) == [
        "point/kernel",
        "by_group/kernel",
        "separable/pointwise_kernel",
    ]
    chosen = mask_model(model, ["depthwise", "by_channel"])
    assert list(get_masks(chosen)) == ["depthwise/kernel", "by_channel/kernel"]
