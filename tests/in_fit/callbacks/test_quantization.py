"""Training with kernels rounded to eight bits."""

import contextlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import layers

import keras_lottery as kl
from keras_lottery.in_fit.callbacks import QuantizationAware
from keras_lottery.in_fit.callbacks.quantization import rounded, rounded_activation
from tests.models_zoo import EAGER, as_array

FLOATS = st.floats(-8, 8, width=32)
KERNELS = arrays.arrays("float32", (5, 3), elements=FLOATS)


def net():
    keras.utils.set_random_seed(0)
    kinds = [
        layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        layers.Conv2DTranspose(6, 2, strides=2, name="transpose"),
    ]
    if keras.backend.backend() != "tensorflow":
        kinds = []  # They compile slowly on JAX.
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
            *kinds,
            layers.Flatten(),
            layers.Dense(12, "relu", name="dense"),
            layers.Dense(3, name="output"),
        ]
    )
    # Momentum moves what was trained before it was pruned.
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Depthwise kernels too.
    return kl.mask_model(model, lambda layer: True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.random((32, 8, 8, 1), dtype="float32"), rng.integers(0, 3, 32)


class Seen(keras.callbacks.Callback):
    """Notes what a kernel is read as, and what its variable holds."""

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.get_layer("dense")
        self.read = np.asarray(keras.ops.convert_to_numpy(layer.kernel))
        self.held = np.asarray(layer.weight_variable("kernel"))


@pytest.fixture(scope="module")
def trained(data):
    """A model that was trained, pruned, and trained with rounding."""
    model = net()
    model.fit(*data, batch_size=16, verbose=0)
    kl.prune(model, 0.7)
    masks = kl.get_masks(model)
    seen = Seen()
    history = model.fit(
        *data,
        batch_size=16,
        epochs=3,
        validation_data=data,
        callbacks=[QuantizationAware(), seen],
        verbose=0,
    )
    return model, masks, seen, history.history


@settings(max_examples=20)
@given(KERNELS)
def test_rounding_keeps_zeros_and_is_a_fixed_point(kernel):
    kernel[np.abs(kernel) < 1e-6] = 0
    once = np.asarray(rounded(kernel, (0,)))
    scale = np.abs(kernel).max(axis=0) / 127
    assert np.all(once[kernel == 0] == 0)
    assert np.all(np.abs(once - kernel) <= 0.501 * scale + 1e-9)
    twice = np.asarray(rounded(once, (0,)))
    np.testing.assert_allclose(twice, once, rtol=1e-5)


def test_pruned_weights_stay_zero(trained):
    model, masks, seen, _ = trained
    assert kl.get_masks(model) == masks
    for name, kernel in kl.get_state(model).items():
        if name in masks:
            assert np.all(kernel[~masks[name]] == 0), name
    dead = ~masks["dense/kernel"]
    assert np.all(seen.read[dead] == 0) and np.all(seen.held[dead] == 0)


def test_what_is_trained_with_is_rounded_and_what_is_trained_is_not(trained):
    _, _, seen, history = trained
    scale = np.abs(seen.held).max(axis=0) / 127
    steps = seen.read / np.where(scale > 0, scale, 1)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert np.abs(seen.read - seen.held).max() > 0.1 * scale.max()
    assert history["loss"][-1] < history["loss"][0]


def test_the_rounded_values_are_the_weights_in_the_end(trained, data):
    model, _, seen, history = trained
    kernel = np.asarray(model.get_layer("dense").weight_variable("kernel"))
    np.testing.assert_allclose(kernel, seen.read, atol=1e-6)
    assert model.get_layer("dense").rounding is None
    # What was validated is what is there.
    loss, _ = model.evaluate(*data, verbose=0)
    assert loss == pytest.approx(history["val_loss"][-1], rel=1e-4)
    # And nothing rounds any more.
    plain = kl.strip_masks(model)
    np.testing.assert_allclose(
        as_array(plain(data[0])), as_array(model(data[0])), atol=1e-5
    )


@pytest.mark.once
def test_weights_that_are_put_back_are_rounded(data):
    class Rising(keras.callbacks.Callback):
        """Makes the first epoch the best."""

        def on_epoch_end(self, epoch, logs=None):
            logs["rising"] = epoch

    model = net()
    kl.prune(model, 0.7)
    stop = keras.callbacks.EarlyStopping(
        "rising", mode="min", restore_best_weights=True
    )
    history = model.fit(
        *data,
        batch_size=16,
        epochs=2,
        validation_data=data,
        callbacks=[QuantizationAware(), Rising(), stop],
        verbose=0,
    )
    kernel = np.asarray(model.get_layer("dense").kernel)
    steps = kernel / (np.abs(kernel).max(axis=0) / 127)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    # What was validated then is what is there.
    loss, _ = model.evaluate(*data, verbose=0)
    assert loss == pytest.approx(history.history["val_loss"][0], rel=1e-4)


def test_gradients_pass_as_if_nothing_were_rounded(data):
    """A step moves unrounded weights by the gradient at the rounded ones."""
    dense = [layers.Flatten(), layers.Dense(12, "relu", name="dense"), layers.Dense(3)]
    model = kl.mask_model(keras.Sequential([keras.Input((8, 8, 1)), *dense]))
    kl.prune(model, 0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def one_step(model, rate, *callbacks):
        model.compile(keras.optimizers.SGD(rate), loss, **EAGER)
        seen = Seen()
        callbacks = [*callbacks, seen]
        model.fit(*data, batch_size=32, callbacks=callbacks, verbose=0)
        return seen.held

    before = one_step(model, 0.0)
    at_rounded = kl.mask_model(model)
    one_step(at_rounded, 0.0, QuantizationAware())
    rounded_before = as_array(at_rounded.get_layer("dense").kernel)
    assert not np.array_equal(rounded_before, before)
    gradient = rounded_before - one_step(at_rounded, 1.0)
    moved = before - one_step(model, 1.0, QuantizationAware())
    assert np.abs(moved).max() > 1e-3
    np.testing.assert_allclose(moved, gradient, atol=1e-6)


@settings(max_examples=20)
@given(arrays.arrays("float32", (40,), elements=FLOATS))
def test_activations_are_rounded_to_256_values_and_zero_is_one(values):
    values[0] = 0
    found = as_array(rounded_activation(keras.ops.convert_to_tensor(values)))
    scale = (values.max() - values.min()) / 255  # Zero is between them.
    assert found[0] == 0
    assert np.abs(found - values).max() <= 0.501 * scale + 1e-6
    if scale > 1e-6:
        steps = found / scale
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-2)
    whole = keras.ops.convert_to_tensor(np.arange(3))
    assert rounded_activation(whole) is whole


class Outputs(keras.callbacks.Callback):
    """Notes what a layer makes of inputs while it trains, and what it should."""

    def __init__(self, name, x):
        super().__init__()
        self.name, self.x = name, keras.ops.convert_to_tensor(x)

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.get_layer(self.name)
        self.found = as_array(layer(self.x))
        kernel, bias = as_array(layer.kernel), as_array(layer.bias)
        self.plain, self.rounded = (
            np.maximum(as_array(x) @ kernel + bias, 0)
            for x in (self.x, rounded_activation(self.x))
        )


def test_activations_are_rounded_where_kernels_are():
    x = np.random.default_rng(0).random((8, 12), dtype="float32")
    dense = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(6, "relu", name="rounded"),
            layers.Dense(6, "relu", name="plain"),
        ]
    )
    model = kl.mask_model(dense)
    model.compile("sgd", "mse")
    y = np.ones((8, 6), "float32")
    seen = Outputs("rounded", x), Outputs("plain", x[:, :6])
    rounding = QuantizationAware(exclude=["plain"], activations=True)
    model.fit(x, y, callbacks=[rounding, *seen], verbose=0)
    np.testing.assert_allclose(seen[0].found, seen[0].rounded, atol=1e-6)
    assert np.abs(seen[0].found - seen[0].plain).max() > 1e-5
    np.testing.assert_allclose(seen[1].found, seen[1].plain, atol=1e-6)
    # And nothing rounds any more, nor after a training that raised.
    layer = model.get_layer("rounded")
    before = as_array(layer(x))

    class Raises(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyError("stop")

    for last, error in (([Raises()], KeyError), ([], None)):
        with pytest.raises(error) if error else contextlib.nullcontext():
            callbacks = [QuantizationAware(activations=error is not None), *last]
            model.fit(x, 0 * y, callbacks=callbacks, verbose=0)
    kernel, bias = as_array(layer.kernel), as_array(layer.bias)
    expected = np.maximum(x @ kernel + bias, 0)
    np.testing.assert_allclose(as_array(layer(x)), expected, atol=1e-6)
    assert not np.allclose(expected, before)


@pytest.mark.once
def test_layers_inside_of_others_have_rounded_activations():
    """`TimeDistributed` calls its layer past `__call__`."""
    inner = layers.Dense(3, name="inner")
    model = keras.Sequential([keras.Input((4, 5)), layers.TimeDistributed(inner)])
    model = kl.mask_model(model)
    model.compile("sgd", "mse", **EAGER)
    x = np.random.default_rng(0).normal(size=(6, 4, 5)).astype("float32")
    start, losses = kl.get_state(model), []
    for activations in (False, True):
        kl.set_state(model, start)
        rounding = QuantizationAware(activations=activations)
        history = model.fit(x, x[..., :3], callbacks=[rounding], verbose=0)
        losses.append(history.history["loss"][0])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.once
def test_an_unmasked_model_is_refused(data):
    model = kl.strip_masks(net())
    with pytest.raises(ValueError, match="QuantizationAware needs a masked model"):
        model.fit(*data, callbacks=[QuantizationAware()], verbose=0)


@pytest.mark.once
def test_shared_values_stay_shared_and_layers_may_be_left_out(data):
    model = net()
    kl.prune(model, 0.5)
    kl.share_weights(model, bits=3)
    both = [QuantizationAware(exclude=["conv", "out*"]), kl.callbacks.SharedWeights()]
    model.fit(*data, batch_size=16, epochs=2, callbacks=both, verbose=0)
    for name, kernel in kl.get_state(model).items():
        if name in kl.get_masks(model):
            assert len(np.unique(kernel)) <= 9, name
            steps = kernel / (np.abs(kernel).max() / 127)
            whole = np.allclose(steps, np.round(steps), atol=1e-3)
            assert whole != name.startswith(("conv", "output")), name
    with pytest.raises(ValueError, match="'typo' matches none"):
        model.fit(*data, callbacks=[QuantizationAware(exclude=["typo"])], verbose=0)


def integers(path):
    """The int8 constants of a file, with their scales, by the layers' names."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    found = {}
    for tensor in interpreter.get_tensor_details():
        scales = tensor["quantization_parameters"]["scales"]
        if tensor["dtype"] == np.int8 and len(scales) > 1:
            axis = tensor["quantization_parameters"]["quantized_dimension"]
            shape = [-1 if i == axis else 1 for i in range(len(tensor["shape"]))]
            ints = interpreter.get_tensor(tensor["index"])
            found[tensor["name"]] = ints, scales.reshape(shape)
    return found


def transposed(layer, kernel):
    """A Keras kernel with its axes as LiteRT has them, outputs first."""
    if isinstance(layer, layers.DepthwiseConv2D):
        return np.moveaxis(kernel, 3, 0)
    if isinstance(layer, layers.Conv2DTranspose):
        return np.transpose(kernel, (2, 0, 1, 3))
    return np.moveaxis(kernel, -1, 0)


@pytest.mark.tensorflow
def test_an_int8_file_holds_the_very_values_and_the_zeros_of_the_masks(
    trained, data, tmp_path
):
    model, masks, _, _ = trained
    report = kl.export.to_litert(
        model, tmp_path / "a.tflite", quantize="int8", representative_data=data[0]
    )
    stored = integers(report.path)
    for name in ("conv", "depthwise", "transpose", "dense", "output"):
        layer = model.get_layer(name)
        kernel = transposed(layer, np.asarray(layer.kernel))
        mask = transposed(layer, masks[f"{name}/kernel"])
        matching = [
            (ints, scale)
            for ints, scale in stored.values()
            if ints.shape == kernel.shape
            and np.allclose(ints * scale, kernel, atol=1e-3 * np.abs(kernel).max())
        ]
        assert len(matching) == 1, f"{name}: {kernel.shape} among {list(stored)}"
        ints, _ = matching[0]
        assert np.all(ints[~mask] == 0)
        # Live weights below half a step are zero as well, here as there.
        assert np.count_nonzero(ints) == np.count_nonzero(kernel)
        assert np.count_nonzero(ints) > 0.8 * np.count_nonzero(mask)


@pytest.mark.tensorflow
def test_keras_own_quantisation_of_a_stripped_model_keeps_the_zeros():
    model = net()
    kl.prune(model, 0.7)
    plain = kl.strip_masks(model)
    with pytest.warns(UserWarning, match="quantize"):
        plain.quantize("int8")
    masks = kl.get_masks(model)
    kernel = np.asarray(plain.get_layer("dense")._kernel)
    assert kernel.dtype == np.int8
    assert np.all(kernel[~masks["dense/kernel"]] == 0)
    assert np.count_nonzero(kernel) > 0.8 * masks["dense/kernel"].sum()
