"""Models pruned with TFMOT carry over to Keras 3: outputs, weights and masks."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lottery.interop.tfmot import from_tfmot, import_tfmot
from keras_lottery.keras_bridge.layers import (
    MASKED_LAYERS,
    get_masks,
    get_sparsity,
    is_masked,
    mask_model,
    named_variables,
    strip_masks,
)
from tests.models_zoo import KERAS

pytestmark = pytest.mark.tensorflow


def mlp(tk):
    return tk.Sequential(
        [
            tk.Input((6,)),
            tk.layers.Dense(8, "relu", kernel_regularizer=tk.regularizers.L2(1e-3)),
            tk.layers.Dropout(0.2),
            tk.layers.Dense(4, "softmax"),
        ]
    )


def first_layer_has_the_shape(tk):
    return tk.Sequential(
        [tk.layers.Dense(8, "gelu", input_shape=(6,)), tk.layers.Dense(4)]
    )


def cnn(tk):
    L = tk.layers
    return tk.Sequential(
        [
            tk.Input((8, 8, 3)),
            L.Conv2D(4, 3, padding="same", kernel_constraint=tk.constraints.MaxNorm(2)),
            L.BatchNormalization(momentum=0.9, epsilon=0.01),
            L.ReLU(6.0, negative_slope=0.1),
            L.DepthwiseConv2D(3, depth_multiplier=2, strides=2),
            L.LeakyReLU(0.2),
            L.SeparableConv2D(4, 2, activation="swish"),
            L.MaxPooling2D(2, padding="same"),
            L.Flatten(),
            L.Dense(4, tk.layers.ELU(0.5)),
        ]
    )


def conv1d(tk):
    return tk.Sequential(
        [
            tk.Input((None, 3)),
            tk.layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
            tk.layers.SpatialDropout1D(0.1),
            tk.layers.GlobalAveragePooling1D(),
            tk.layers.Dense(2),
        ]
    )


def shared_layer(tk):
    x = tk.Input((4,))
    shared = tk.layers.Dense(4, "tanh")
    return tk.Model(x, tk.layers.Dense(2)(shared(shared(x))))


def nested(tk):
    x = tk.Input((4,))
    inner = tk.Sequential([tk.Input((4,)), tk.layers.Dense(4, "relu"), mlp_of_4(tk)])
    y = tk.layers.Add()([inner(x), inner(tk.layers.LayerNormalization()(x))])
    return tk.Model(x, tk.layers.Dense(2)(y))


def mlp_of_4(tk):
    x = tk.Input((4,))
    return tk.Model(x, tk.layers.Dense(5, "selu")(tk.layers.Dense(3)(x)))


def branches(tk):
    """Two inputs and two outputs, in dictionaries."""
    words, numbers = tk.Input((3,), dtype="int32"), tk.Input((4,))
    x = tk.layers.Flatten()(tk.layers.Embedding(5, 2, input_length=3)(words))
    x = tk.layers.Concatenate()([numbers, x])
    inputs = {"words": words, "numbers": numbers}
    return tk.Model(
        inputs, {"b": tk.layers.Dense(2)(x), "a": tk.layers.Dense(3, "relu")(x)}
    )


MODELS = [
    mlp,
    first_layer_has_the_shape,
    cnn,
    conv1d,
    shared_layer,
    nested,
    branches,
]


def scramble(model, seed=0):
    """Draws all weights, so that none is left at zero or one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(size=weight.shape)
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.name else values)
    return model


def wrap(tfmot, model, sparsity=0.5, **kwargs):
    """TFMOT's wrappers around all that it prunes, with masks as after a training."""
    prunable = tfmot.sparsity.keras
    schedule = prunable.ConstantSparsity(sparsity, begin_step=0, frequency=1)
    pruned = prunable.prune_low_magnitude(model, schedule, **kwargs)
    update_masks(pruned)
    return pruned


def wrappers(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from wrappers(layer)
        if type(layer).__name__ == "PruneLowMagnitude":
            yield layer


def update_masks(model, step=1):
    for layer in wrappers(model):
        layer.pruning_step.assign(step)
        layer.pruning_obj.conditional_mask_update()


def draw(model, seed=1):
    rng = np.random.default_rng(seed)

    def batch(tensor):
        shape = (5, *(size or 9 for size in tensor.shape[1:]))
        if tensor.dtype.is_integer:
            return rng.integers(0, 5, shape)
        return rng.normal(size=shape).astype("float32")

    return keras.tree.map_structure(batch, model._nested_inputs)


def assert_same_outputs(old, new):
    x = draw(old)
    one, other = (
        keras.tree.map_structure(np.asarray, model(x, training=False))
        for model in (old, new)
    )
    keras.tree.assert_same_structure(one, other)
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def tfmot_masks(model):
    """By the name of the layer that the wrapper holds."""
    return {
        (layer.layer.name, weight.name.rpartition("/")[2].removesuffix(":0")): (
            np.asarray(mask) != 0
        )
        for layer in wrappers(model)
        for weight, mask, _ in layer.pruning_vars
    }


def our_masks(model):
    """Likewise: by layer and weight."""
    by_name = {}
    variables = named_variables(model)
    for name, mask in get_masks(model).items():
        *_, layer, _ = variables[name].path.split("/")
        by_name[layer, name.rpartition("/")[2]] = mask
    return by_name


@pytest.mark.parametrize("build", MODELS)
def test_a_wrapped_model_and_what_is_stripped_of_it(tfmot, tk, build):
    pruned = wrap(tfmot, scramble(build(tk)))
    masked = from_tfmot(pruned)
    assert_same_outputs(pruned, masked)
    theirs, ours = tfmot_masks(pruned), our_masks(masked)
    carried = {key: ours[key] for key in ours if key in theirs}
    assert carried, "no mask was compared"
    for key, mask in carried.items():
        np.testing.assert_array_equal(mask, theirs[key], err_msg=str(key))
        assert 0.4 < 1 - mask.mean() < 0.6
    # A separable convolution is pruned in one of its two kernels.
    rest = [mask for key, mask in ours.items() if key not in theirs]
    assert all(mask.all() for mask in rest)

    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    again = from_tfmot(stripped)
    assert_same_outputs(stripped, again)
    masks = our_masks(again)
    for key, mask in ours.items():
        np.testing.assert_array_equal(mask, masks[key])
    assert 0 < get_sparsity(again) < 1
    assert_same_outputs(stripped, strip_masks(again))


def test_every_layer_that_can_be_masked_is_in_a_stripped_model(tfmot, tk):
    """The wrapped one knows which layers TFMOT pruned; the stripped one does not."""
    model = tk.Sequential(
        [
            tk.Input((4,)),
            wrap_layer(tfmot, tk.layers.Dense(4, name="pruned")),
            tk.layers.Dense(2, name="dense"),
        ]
    )
    update_masks(scramble(model))
    assert list(get_masks(from_tfmot(model))) == ["pruned/kernel"]
    stripped = from_tfmot(tfmot.sparsity.keras.strip_pruning(model))
    assert [mask.mean() for mask in get_masks(stripped).values()] == [0.5, 1.0]


def wrap_layer(tfmot, layer, **kwargs):
    prunable = tfmot.sparsity.keras
    schedule = prunable.ConstantSparsity(0.5, begin_step=0, frequency=1)
    return prunable.prune_low_magnitude(layer, schedule, **kwargs)


def test_blocks(tfmot, tk):
    model = tk.Sequential([tk.Input((8,)), tk.layers.Dense(6), tk.layers.Dense(4)])
    pruned = wrap(tfmot, scramble(model), block_size=(4, 1))
    for name, mask in get_masks(from_tfmot(pruned)).items():
        if mask.shape[0] == 8:
            blocks = mask.reshape(2, 4, 6)
            assert (blocks == blocks[:, :1]).all(), name
            assert mask.mean() == 0.5


def test_m_by_n(tfmot, tk):
    pruned = wrap(tfmot, scramble(mlp_of_8(tk)), sparsity_m_by_n=(2, 4))
    (mask, *_) = get_masks(from_tfmot(pruned)).values()
    assert (mask.reshape(2, 4, 4).sum(axis=1) == 2).all()


def mlp_of_8(tk):
    return tk.Sequential([tk.Input((8,)), tk.layers.Dense(4)])


def test_a_policy(tfmot, tk):
    """PruneForLatencyOnXNNPack wraps 1×1 convolutions alone."""
    L = tk.layers
    model = tk.Sequential(
        [
            tk.Input((9, 9, 3)),
            L.ZeroPadding2D(1),
            L.Conv2D(8, 3, strides=2, padding="valid"),
            L.Conv2D(8, 1, name="pruned"),
            L.GlobalAveragePooling2D(),
            L.Dense(2),
        ]
    )
    policy = tfmot.sparsity.keras.PruneForLatencyOnXNNPack()
    pruned = wrap(tfmot, scramble(model), pruning_policy=policy)
    masks = get_masks(from_tfmot(pruned))
    assert {name: mask.mean() for name, mask in masks.items()} == {"pruned/kernel": 0.5}


def test_after_a_training(tfmot, tk):
    """The weights of a wrapper may be off their masks; the model that comes is not."""
    prunable = tfmot.sparsity.keras
    pruned = prunable.prune_low_magnitude(
        mlp(tk), prunable.ConstantSparsity(0.75, begin_step=0, frequency=1)
    )
    pruned.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(0).normal(size=(32, 6)), np.arange(32) % 4
    pruned.fit(x, y, 8, 2, verbose=0, callbacks=[prunable.UpdatePruningStep()])
    for model in (pruned, prunable.strip_pruning(pruned)):
        masked = from_tfmot(model)
        assert get_sparsity(masked) == 0.75
        assert_same_outputs(model, masked)
    masked.compile("adam", "sparse_categorical_crossentropy")
    masked.fit(x, y, verbose=0)
    assert get_sparsity(masked) == 0.75


def test_weights_off_their_masks_come_over_as_zeros(tfmot, tk):
    pruned = wrap(tfmot, scramble(mlp_of_8(tk)))
    (weight, mask, _), *_ = pruned.layers[0].pruning_vars
    weight.assign(np.ones(weight.shape))
    masked = from_tfmot(pruned)
    np.testing.assert_array_equal(masked.layers[0]._kernel, np.asarray(mask))


def test_the_zeros_are_kept_by_the_file(tfmot, tk, tmp_path):
    """A model that TFMOT's user has saved, and loads again."""
    pruned = wrap(tfmot, scramble(mlp(tk)))
    path = tmp_path / "pruned.h5"
    pruned.save(path)
    with tfmot.sparsity.keras.prune_scope():
        loaded = tk.models.load_model(path)
    assert get_masks(from_tfmot(loaded)) == get_masks(from_tfmot(pruned))


def test_mixed_precision_and_frozen_layers(tfmot, tk):
    tk.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = tk.Sequential(
            [
                tk.Input((6,)),
                tk.layers.Dense(4, trainable=False),
                tk.layers.BatchNormalization(trainable=False),
                tk.layers.Dense(2),
                tk.layers.Activation("softmax", dtype="float32"),
            ]
        )
        pruned = wrap(tfmot, scramble(model))
    finally:
        tk.mixed_precision.set_global_policy("float32")
    masked = from_tfmot(pruned)
    dtypes = [layer.compute_dtype for layer in masked.layers]
    assert dtypes == ["float16", "float16", "float16", "float32"]
    assert masked.layers[0].variable_dtype == "float32"
    assert get_sparsity(masked) == 0.5
    assert [layer.trainable for layer in masked.layers][:3] == [False, False, True]


def test_a_frozen_model_inside(tfmot, tk):
    x = tk.Input((4,))
    inner = mlp_of_4(tk)
    model = tk.Model(x, tk.layers.Dense(2)(inner(x)))
    inner.trainable = False
    masked = from_tfmot(wrap(tfmot, model))
    assert len(masked.trainable_variables) == len(model.trainable_variables) == 2


def test_a_call_has_its_arguments(tfmot, tk):
    """Dropout that is always on, and layers that take more than one tensor."""
    x = tk.Input((4, 6))
    y = tk.layers.MultiHeadAttention(2, 3)(
        x, tk.layers.Dense(6)(x), attention_mask=None
    )
    y = tk.layers.Dropout(1e-9)(y, training=True)
    z = tk.layers.LSTM(4)(
        y, initial_state=[tk.layers.Flatten()(tk.layers.Dense(1)(x))] * 2
    )
    model = scramble(tk.Model(x, tk.layers.Dense(2)(z)))
    assert_same_outputs(model, from_tfmot(model))


PADDED = 1 if KERAS > (3, 12) else None
LAYERS = {
    "recurrent": lambda L: [
        L.Bidirectional(L.GRU(3, return_sequences=True)),
        L.LSTM(2),
    ],
    "cells": lambda L: [L.RNN([L.LSTMCell(3), L.GRUCell(2, reset_after=False)])],
    "time": lambda L: [L.TimeDistributed(L.Dense(3, L.Softmax(), trainable=False))],
    "einsum": lambda L: [L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d")],
    "norms": lambda L: [L.GroupNormalization(3), L.UnitNormalization(), L.PReLU()],
    "conv": lambda L: [L.Conv1D(4, 2, groups=2), L.Conv1DTranspose(2, 2, strides=2)],
    "conv2d": lambda L: [
        L.Reshape((4, 6, 1)),
        # Keras 3.12 leaves it out of the layer's config.
        L.Conv2DTranspose(2, 3, strides=2, output_padding=PADDED),
        L.UpSampling2D(2, interpolation="bilinear"),
        L.ZeroPadding2D(((1, 0), (2, 1))),
        L.Cropping2D(1),
        L.Conv2D(4, 3, groups=2, dilation_rate=2),
        L.BatchNormalization(axis=1, center=False),
        L.Rescaling(0.5, offset=1.0),
        L.GlobalMaxPooling2D(keepdims=True),
    ],
    "conv3d": lambda L: [L.Reshape((2, 2, 3, 2)), L.Conv3D(3, (1, 2, 2))],
    "simple": lambda L: [L.Masking(0.0), L.SimpleRNN(3, "relu", stateful=False)],
}


def wrapped(tfmot, layer):
    """The layer wrapped, if TFMOT prunes it."""
    try:
        return wrap_layer(tfmot, layer)
    except ValueError:
        return layer


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_and_its_masks(tfmot, tk, kind):
    layers = [*LAYERS[kind](tk.layers), tk.layers.Dense(2)]
    pruned = tk.Sequential([tk.Input((4, 6)), *(wrapped(tfmot, x) for x in layers)])
    update_masks(scramble(pruned))
    masked = from_tfmot(pruned)
    assert_same_outputs(pruned, masked)
    theirs = [
        (tuple(mask.shape), int(np.sum(mask)))
        for layer in wrappers(pruned)
        for _, mask, _ in layer.pruning_vars
    ]
    ours = [(mask.shape, int(mask.sum())) for mask in get_masks(masked).values()]
    assert sorted(ours) == sorted(theirs)


def test_regularizers_initializers_and_constraints(tfmot, tk):
    layer = tk.layers.Dense(
        4,
        kernel_initializer=tk.initializers.HeUniform(seed=3),
        kernel_regularizer=tk.regularizers.L1L2(1e-3, 1e-2),
        bias_constraint=tk.constraints.NonNeg(),
        activity_regularizer="l2",
    )
    (new,) = from_tfmot(wrap(tfmot, tk.Sequential([tk.Input((3,)), layer]))).layers
    assert new.kernel_initializer.get_config()["seed"] == 3
    assert isinstance(new.kernel_initializer, keras.initializers.HeUniform)
    penalty = [float(r) for r in (new.kernel_regularizer.l1, new.kernel_regularizer.l2)]
    assert penalty == pytest.approx([1e-3, 1e-2])
    assert isinstance(new.bias_constraint, keras.constraints.NonNeg)
    assert isinstance(new.activity_regularizer, keras.regularizers.L2)


def custom_layers(tk):
    class Double(tk.layers.Layer):
        def call(self, x):
            return 2 * x

    class NewDouble(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    class Triple(NewDouble):
        def call(self, x):
            return 3 * x

    return Double, NewDouble, Triple


def test_custom_layers_are_named_before_anything_is_built(tfmot, tk, monkeypatch):
    Double, NewDouble, Triple = custom_layers(tk)
    x = tk.Input((4,))
    y = tk.layers.Lambda(lambda x: x + 1, name="add_one")(tk.layers.Dense(4)(x))
    model = tk.Model(x, Double(name="twice")(y) * 2)
    with monkeypatch.context() as patch:
        patch.setattr(keras.layers.Layer, "build", None)
        patch.setattr(keras.layers.Dense, "build", None)
        with pytest.raises(ValueError) as error:
            from_tfmot(model)
    for text in (
        "'add_one' (Lambda)",
        "'twice' (Double): is a class of its own",
        "(TFOpLambda)",
        "custom_objects={",
    ):
        assert text in str(error.value)

    x = tk.Input((4,))
    model = scramble(tk.Model(x, tk.layers.Dense(2)(Double(name="twice")(x))))
    pruned = tfmot.sparsity.keras.strip_pruning(model)
    masked = from_tfmot(pruned, custom_objects={"Double": NewDouble})
    assert_same_outputs(pruned, masked)
    with pytest.raises(RuntimeError, match=r"Output 0 of .* differs by \d"):
        from_tfmot(pruned, custom_objects={"Double": Triple})


def test_custom_functions(tk):
    def wave(x):
        return tk.activations.tanh(3 * x)

    def new_wave(x):
        return keras.ops.tanh(3 * x)

    model = tk.Sequential(
        [tk.Input((4,)), tk.layers.Dense(3, wave), tk.layers.Activation(wave)]
    )
    with pytest.raises(ValueError, match=r"'dense.*wave"):
        from_tfmot(model)
    assert_same_outputs(model, from_tfmot(model, custom_objects={"wave": new_wave}))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda L: L.LocallyConnected1D(2, 2), "is unknown to Keras 3"),
        (lambda L: L.LSTM(2, time_major=True), "time_major=True"),
        (lambda L: L.Dense(2, "hard_sigmoid"), "another slope"),
        (lambda L: L.TimeDistributed(L.Lambda(abs)), "holds Python code"),
        (lambda L: L.BatchNormalization(axis=[1, 2]), "one axis"),
    ],
)
def test_what_has_no_counterpart_is_named(tk, layer, reason):
    layer = layer(tk.layers)
    model = tk.Sequential([tk.Input((4, 6)), layer])
    with pytest.raises(ValueError, match=f"'{layer.name}' .*{reason}"):
        from_tfmot(model)


def test_a_mask_that_no_layer_takes_is_not_lost(tfmot, tk, monkeypatch):
    monkeypatch.delitem(MASKED_LAYERS, keras.layers.Conv1D)
    model = tk.Sequential(
        [tk.Input((6, 2)), tk.layers.Conv1D(4, 3, name="lost"), tk.layers.Dense(2)]
    )
    pruned = wrap(tfmot, scramble(model))
    with pytest.raises(ValueError, match=r"\['lost/kernel'\].*`strip_pruning`"):
        from_tfmot(pruned)
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    assert_same_outputs(stripped, from_tfmot(stripped))


def test_a_keras_3_model_is_refused_helpfully(tk):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"a Keras 3 model.*`mask_model"):
        from_tfmot(model)


def test_other_models_are_refused(tk):
    class Subclassed(tk.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Received: model='a'"):
        from_tfmot("a")
    with pytest.raises(ValueError, match="class Subclassed"):
        from_tfmot(Subclassed())
    with pytest.raises(ValueError, match="built=False"):
        from_tfmot(tk.Sequential([tk.layers.Dense(3)]))


def test_the_given_model_is_left_as_it_is(tfmot, tk):
    pruned = wrap(tfmot, scramble(cnn(tk)))
    pruned(draw(pruned))  # zeroes what the masks prune
    before = [np.array(weight) for weight in pruned.variables]
    from_tfmot(pruned)
    for one, other in zip(before, pruned.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ones_own_inputs(tk):
    """For a model that the random batch does not suit."""
    model = tk.Sequential([tk.Input((None, 6)), tk.layers.Conv1D(2, 40)])
    with pytest.raises(Exception, match=r"onvolution|imension|size"):
        from_tfmot(model)
    masked = from_tfmot(model, x=np.ones((1, 50, 6), "float32"))
    assert is_masked(masked)


@pytest.mark.slow
def test_the_import_leaves_the_process_as_it_was():
    """`TF_USE_LEGACY_KERAS` would make Keras 2 of `tf.keras`, here and in children."""
    code = (
        "import os, sys\n"
        "from keras_lottery.interop.tfmot import import_tfmot\n"
        "assert 'tensorflow_model_optimization' not in sys.modules\n"
        "before = dict(os.environ)\n"
        "tfmot = import_tfmot()\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "import tensorflow as tf\n"
        "print(tfmot.__name__, tf.keras.version()[0])\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    if "TFMOT is not installed" in run.stderr:
        pytest.skip("TFMOT is not installed")
    assert run.stdout.split() == ["tensorflow_model_optimization", "3"], run.stderr


def test_without_tfmot_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    with pytest.raises(ImportError, match=r"keras_lottery\[tfmot\]"):
        import_tfmot()
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"


def test_without_tf_keras_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r"keras_lottery\[tfmot\]"):
        from_tfmot(None)
    with pytest.raises(ValueError, match="mask_model"):
        from_tfmot(
            mask_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
        )
