"""Masked layers: forward pass, training, what is saved."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_lottery.keras_bridge.layers import (
    MASKED_LAYERS,
    MaskedDense,
    get_masks,
    get_state,
    mask_model,
    named_masks,
    premasked,
)
from keras_lottery.keras_bridge.layers.masked import unprojected
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.pruning import prune
from tests.models_zoo import (
    as_array,
    branches,
    compiled,
    fit,
    inputs,
    mlp,
    needs_muon,
    outputs,
    pruned,
    pruned_weights,
    scramble,
    separable,
)

tensorflow = pytest.mark.tensorflow
LINE, IMAGE, VIDEO = (6, 2), (6, 6, 2), (4, 4, 4, 2)
CONV = {"filters": 4, "kernel_size": 3}
ARGUMENTS = {
    "Dense": ((4,), {"units": 4}),
    "EinsumDense": ((5, 4), {"equation": "abc,cd->abd", "output_shape": (None, 3)}),
    "Conv1D": (LINE, CONV),
    "Conv2D": (IMAGE, CONV),
    "Conv3D": (VIDEO, CONV),
    "Conv1DTranspose": (LINE, CONV),
    "Conv2DTranspose": (IMAGE, CONV),
    "Conv3DTranspose": (VIDEO, CONV),
    "DepthwiseConv1D": (LINE, {"kernel_size": 3}),
    "DepthwiseConv2D": (IMAGE, {"kernel_size": 3}),
    "SeparableConv1D": (LINE, CONV),
    "SeparableConv2D": (IMAGE, CONV),
    "LSTMCell": ((4,), {"units": 3}),
    "GRUCell": ((4,), {"units": 3}),
    "SimpleRNNCell": ((4,), {"units": 3}),
    "Embedding": ((3,), {"input_dim": 5, "output_dim": 4}),
    "ReversibleEmbedding": ((3,), {"input_dim": 5, "output_dim": 4}),
}
# The tests of other files may register layers of their own.
PLAIN = [getattr(keras.layers, name) for name in ARGUMENTS]


def test_every_layer_of_keras_that_has_a_masked_form_is_tested():
    ours = {plain for plain in MASKED_LAYERS if plain.__module__.startswith("keras.")}
    assert ours == set(PLAIN)


def make(plain, **kwargs):
    """A masked layer and the ordinary one, both built, and an input."""
    shape, arguments = ARGUMENTS[plain.__name__]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, *shape)).astype("float32")
    if issubclass(plain, keras.layers.Embedding):
        kwargs.pop("activation", None)
        x = rng.integers(0, 5, x.shape)
    pair = MASKED_LAYERS[plain](**arguments, **kwargs), plain(**arguments, **kwargs)
    for layer in pair:
        layer.build((None, *shape))
    return *pair, x


def run(layer, x):
    if hasattr(layer, "state_size"):
        y, _ = layer(x, [x[:, :3], x[:, :3]])
        return as_array(y)
    return as_array(layer(x))


def halve(layer):
    """Random masks on a layer; returns the weights that are left."""
    rng = np.random.default_rng(0)
    left = {}
    for name in layer.masked_weights:
        mask = layer.mask_variable(name)
        mask.assign(rng.random(mask.shape) < 0.5)
        left[name] = read(layer.weight_variable(name)) * read(mask)
    return left


@pytest.mark.parametrize("plain", PLAIN, ids=lambda layer: layer.__name__)
class TestEveryLayer:
    def test_computes_what_the_ordinary_layer_does_with_zeros(self, plain):
        masked, ordinary, x = make(plain, activation="relu")
        dense = run(masked, x)
        left = halve(masked)
        weights = [w for w in masked.weights if w.dtype != "bool"]
        for weight, target in zip(weights, ordinary.weights, strict=True):
            target.assign(left.get(weight.name, weight))
        np.testing.assert_allclose(
            run(masked, x), run(ordinary, x), rtol=1e-5, atol=1e-6
        )
        assert not np.allclose(run(masked, x), dense)

    def test_weights_read_as_masked(self, plain):
        masked, _, _ = make(plain)
        for name, left in halve(masked).items():
            np.testing.assert_array_equal(as_array(getattr(masked, name)), left)
            assert (left == 0).any()

    def test_masks_are_boolean_named_after_their_weights_and_not_trained(self, plain):
        masked, ordinary, _ = make(plain)
        masks = [w for w in masked.non_trainable_variables if w.dtype == "bool"]
        assert [m.name for m in masks] == [f"{n}_mask" for n in masked.masked_weights]
        assert all(read(mask).all() for mask in masks)
        trained = [(w.name, w.shape) for w in masked.trainable_variables]
        assert trained == [(w.name, w.shape) for w in ordinary.trainable_variables]
        assert not any("bias" in mask.name for mask in masks)

    def test_config_is_that_of_the_ordinary_layer(self, plain):
        masked, ordinary, _ = make(plain, name="layer", activation="relu")
        assert masked.get_config() == ordinary.get_config()
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(masked)
        )
        assert type(again) is type(masked)
        assert again.get_config() == masked.get_config()

    def test_cannot_be_quantized(self, plain):
        masked, _, _ = make(plain)
        with pytest.raises(NotImplementedError, match="strip_masks"):
            masked.quantize("int8")


class TestPremasked:
    @pytest.mark.parametrize("plain", PLAIN, ids=lambda layer: layer.__name__)
    def test_weights_are_read_as_they_are_inside_alone(self, plain):
        masked, _, x = make(plain)
        dense = run(masked, x)
        halve(masked)
        with premasked(), premasked():
            np.testing.assert_array_equal(run(masked, x), dense)
            for name in masked.masked_weights:
                raw = read(masked.weight_variable(name))
                np.testing.assert_array_equal(as_array(getattr(masked, name)), raw)
        assert not np.allclose(run(masked, x), dense)

    def test_the_users_own_constraint_is_kept(self):
        layer = MaskedDense(2, kernel_constraint="non_neg")
        layer.build((None, 3))
        layer.kernel_mask.assign(np.zeros((3, 2), bool))
        weight = layer.weight_variable("kernel")
        with unprojected([weight]):
            value = as_array(weight.constraint(np.array([[1.0, -1.0]] * 3)))
        np.testing.assert_array_equal(value, [[1, 0]] * 3)

    def test_other_threads_read_masked_weights(self):
        layer = MaskedDense(2)
        layer.build((None, 3))
        layer.kernel_mask.assign(np.zeros((3, 2), bool))
        with premasked(), ThreadPoolExecutor() as pool:
            assert not pool.submit(lambda: as_array(layer.kernel)).result().any()


def test_zeros_have_no_sign():
    layer = MaskedDense(2, kernel_initializer=keras.initializers.Constant(-1.0))
    layer.build((None, 3))
    layer.kernel_mask.assign(np.zeros((3, 2), bool))
    layer.zero_pruned()
    assert not np.signbit(read(layer.weight_variable("kernel"))).any()


def test_a_pruned_weight_that_is_not_a_number_does_no_harm():
    model = pruned(mlp())
    layer = model.layers[0]
    weights = np.where(read(layer.kernel_mask), 1.0, np.nan)
    layer.weight_variable("kernel").assign(weights)
    prune(model, 0.6)
    assert np.isfinite(outputs(model)).all()


class ChangeMasks(keras.callbacks.Callback):
    """Prunes more after some steps, while the optimizer's momentum is alive."""

    def __init__(self, step=2, sparsity=0.75):
        super().__init__()
        self.step, self.sparsity = step, sparsity

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.step:
            prune(self.model, self.sparsity)


def optimizer(name, **kwargs):
    # Large steps: were a pruned weight to move, it would move far.
    return getattr(keras.optimizers, name)(0.05, **kwargs)


OPTIMIZERS = {
    "momentum": lambda: optimizer("SGD", momentum=0.9),
    "nesterov": lambda: optimizer(
        "SGD", momentum=0.9, nesterov=True, gradient_accumulation_steps=2
    ),
    "adam": lambda: optimizer("Adam", amsgrad=True),
    "adamw": lambda: optimizer("AdamW", weight_decay=0.1),
    "rmsprop": lambda: optimizer("RMSprop", momentum=0.9, centered=True),
    "lion": lambda: optimizer("Lion", weight_decay=0.1),
}
# They mix a tensor's weights, or set them behind the layer's back.
MIXING = {
    "muon": lambda: optimizer("Muon", weight_decay=0.1),
    "average": lambda: optimizer("Adam", use_ema=True, ema_overwrite_frequency=2),
}


def assert_trained_at_zeros(model, kept, before):
    """Live weights have moved, and pruned ones are exactly zero."""
    masks, after = get_masks(model), get_state(model)
    moved = np.concatenate([(after[n] != before[n])[m] for n, m in masks.items()])
    assert moved.size == kept
    assert moved.mean() > 0.5
    assert not pruned_weights(model).any()
    assert not any(after[name][~mask].any() for name, mask in masks.items())
    for layer in model.layers:
        if isinstance(layer, MaskedDense):
            assert not as_array(layer.kernel)[~read(layer.kernel_mask)].any()


@pytest.mark.parametrize(
    "make_optimizer",
    [
        pytest.param(make, id=name, marks=[needs_muon] if name == "muon" else [])
        for name, make in (OPTIMIZERS | MIXING).items()
    ],
)
def test_pruned_weights_are_zero_after_training(make_optimizer):
    model = pruned(compiled(scramble(mlp()), make_optimizer()), 0.25)
    before = get_state(model)
    fit(model, batches=6, callbacks=[ChangeMasks()])
    assert_trained_at_zeros(model, 9, before)


@needs_muon
def test_what_is_read_and_saved_is_zero_even_where_an_optimizer_mixes_weights(tmp_path):
    model = pruned(compiled(scramble(mlp()), keras.optimizers.Muon(0.1)))
    fit(model)
    state = get_state(model)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    again = pruned(mlp(), 0.1)
    again.load_weights(path)
    for name, mask in get_masks(model).items():
        assert not state[name][~mask].any()
        assert not get_state(again)[name][~mask].any()
        assert state[name][mask].any()


def test_convolutions_train_at_exact_zeros():
    model = compiled(scramble(separable()), optimizer("SGD", momentum=0.9))
    model = mask_model(model, ["*conv2d", "dense"])
    prune(model, 0.25, "random")
    before = get_state(model)
    fit(model, callbacks=[ChangeMasks()])
    assert_trained_at_zeros(model, 14, before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = pruned(compiled(mlp(), optimizer("SGD", momentum=0.9)), 0.25)
        before = get_state(model)
        fit(model, callbacks=[ChangeMasks()])
    finally:
        keras.config.set_dtype_policy("float32")
    assert_trained_at_zeros(model, 9, before)
    assert model.layers[0].weight_variable("kernel").dtype == "float32"
    assert as_array(model(inputs(model))).dtype == policy.removeprefix("mixed_")


@tensorflow
def test_compiled_by_xla():
    model = compiled(scramble(mlp()), optimizer("SGD", momentum=0.9), jit_compile=True)
    model = pruned(model, 0.25)
    before = get_state(model)
    fit(model, callbacks=[ChangeMasks()])
    assert model.jit_compile
    assert_trained_at_zeros(model, 9, before)


def test_regularisers_and_constraints_of_the_user_still_work():
    model = mlp(
        kernel_regularizer=keras.regularizers.L2(0.5), kernel_constraint="non_neg"
    )
    model = pruned(compiled(scramble(model), optimizer("Adam")))
    kernels = [as_array(layer.kernel) for layer in model.layers if layer.weights]
    penalty = 0.5 * sum((kernel**2).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(penalty)
    assert any((kernel < 0).any() for kernel in kernels)
    fit(model)
    assert not pruned_weights(model).any()
    for _, weight in named_masks(model).values():
        assert (read(weight) >= 0).all()
        assert (read(weight) > 0).any()
    assert model.layers[0].get_config()["kernel_constraint"]["class_name"] == "NonNeg"


def test_a_file_of_an_unmasked_model_is_refused(tmp_path):
    model = mlp()
    model.save_weights(tmp_path / "plain.weights.h5")
    with pytest.raises(ValueError, match="call `mask_model`"):
        pruned(mlp()).load_weights(tmp_path / "plain.weights.h5")


def test_masks_that_are_assigned_by_hand_count_at_once():
    model = scramble(pruned(mlp(), 0.1))
    layer = model.layers[0]
    layer.kernel_mask.assign(np.zeros((4, 6), bool))
    assert not as_array(layer.kernel).any()
    x = inputs(model)
    np.testing.assert_array_equal(outputs(model, x), outputs(model, 0 * x))


def test_unbuilt_layers_save_and_load(tmp_path):
    model = keras.Sequential([MaskedDense(2)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.build((None, 3))
    assert list(get_masks(again)) == ["masked_dense/kernel"]


@tensorflow
@pytest.mark.parametrize("build", [separable, branches])
def test_saved_model_computes_the_same(build, tmp_path):
    import tensorflow as tf

    model = pruned(scramble(build()))
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(tmp_path / "model")
    x = inputs(model)
    y = np.concatenate(tf.nest.flatten(served.serve(x)), -1)
    np.testing.assert_allclose(y, outputs(model, x), rtol=1e-5, atol=1e-5)
