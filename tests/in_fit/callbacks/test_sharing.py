"""Shared weights: k-means, and the training of shared values."""

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.in_fit.callbacks import SharedWeights, share_weights
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
    set_masks,
    set_state,
)
from tests.models_zoo import (
    EAGER,
    ZOO,
    as_array,
    cases,
    compiled,
    fit,
    inputs,
    mlp,
    needs_muon,
    pruned,
    scramble,
)


def shared(build=mlp, bits=2, sparsity=0.4):
    model = pruned(scramble(build()), sparsity)
    share_weights(model, bits)
    return model


def live_values(model):
    state = get_state(model)
    return {
        name: np.unique(state[name][mask]) for name, mask in get_masks(model).items()
    }


@pytest.mark.once
@pytest.mark.parametrize("build", ZOO.values(), ids=ZOO)
def test_at_most_so_many_values_and_nothing_else_changes(build):
    model = pruned(scramble(build()), 0.4)
    before, masks = get_state(model), get_masks(model)
    share_weights(model, bits=2)
    assert get_masks(model) == masks
    for name, array in get_state(model).items():
        if name not in masks:
            np.testing.assert_array_equal(array, before[name])
            continue
        assert len(np.unique(array[masks[name]])) <= 4
        assert not array[~masks[name]].any()
        # Of two weights, the larger one has no smaller value than the other.
        order = np.argsort(before[name][masks[name]])
        assert (np.diff(array[masks[name]][order]) >= 0).all()


@pytest.mark.once
def test_k_means_from_evenly_spread_centroids():
    """Values in groups: each group's mean. A random start may merge two."""
    model = mask_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    values = [-1, -0.98, -0.34, -0.33, -0.32, 0.3, 0.36, 0.97, 0.98, 0.99, 1, 0]
    kernel = np.array(values, "float32").reshape(4, 3)
    model.layers[0]._kernel.assign(kernel)
    (name,) = get_masks(model)
    set_masks(model, {name: kernel != 0})
    share_weights(model, bits=2)
    np.testing.assert_allclose(
        live_values(model)[name], [-0.99, -0.33, 0.33, 0.985], atol=1e-6
    )


@pytest.mark.once
@pytest.mark.parametrize("bits", [4, 6])
def test_values_are_the_means_of_the_weights_that_are_nearest(bits):
    model = mask_model(keras.Sequential([keras.Input((50,)), keras.layers.Dense(40)]))
    # Long tails: some of the first centroids are near no weight.
    kernel = np.random.default_rng(0).standard_t(3, size=(50, 40)).astype("float32")
    model.layers[0]._kernel.assign(kernel)
    share_weights(model, bits)
    (values,) = live_values(model).values()
    assert len(values) == 2**bits
    shared = np.asarray(model.layers[0]._kernel)
    nearest = np.abs(kernel[..., None] - values).argmin(-1)
    np.testing.assert_array_equal(values[nearest], shared)
    means = [kernel[shared == value].mean(dtype="float64") for value in values]
    np.testing.assert_allclose(values, means, rtol=1e-5, atol=1e-7)


def test_steps_are_counted_on():
    """SGD has as many variables as this model, and none of them is a slot."""
    model = pruned(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    share_weights(model, bits=1)
    model.compile("sgd", "mse")
    x, y = np.ones((4, 4)), np.ones((4, 3))
    for _ in range(2):
        model.fit(x, y, callbacks=[SharedWeights()], verbose=0)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.once
def test_fewer_weights_than_values_stay_as_they_are():
    model = pruned(scramble(mlp()), 0.9)
    before = get_state(model)
    share_weights(model, bits=8)
    for name, array in get_state(model).items():
        np.testing.assert_allclose(array, before[name], rtol=1e-6)


@pytest.mark.once
def test_bits_by_layer():
    model = pruned(scramble(mlp()), 0.0)
    share_weights(model, {"dense_1": 1, "dense*": 3})
    assert [len(values) for values in live_values(model).values()] == [8, 2]
    model = pruned(scramble(mlp()), 0.0)
    share_weights(model, {"dense_1": np.int64(1)})
    assert [len(values) for values in live_values(model).values()] == [24, 2]


@pytest.mark.once
@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (0, "bits=0"),
        (13, "bits=13"),
        (2.5, "bits=2.5"),
        ({"typo": 3}, "'typo' matches none"),
        ({"dense": 3, "dense_1": 0}, r"bits\['dense_1'\]=0"),
    ],
)
def test_wrong_bits_are_refused(bits, message):
    model = pruned(scramble(mlp()))
    before = get_state(model)
    with pytest.raises(ValueError, match=message):
        share_weights(model, bits)
    for name, array in get_state(model).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.once
def test_unmasked_models_and_nan_are_refused():
    with pytest.raises(ValueError, match="mask_model"):
        share_weights(mlp())
    model = pruned(scramble(mlp()), 0.0)
    weight = named_masks(model)["dense/kernel"][1]
    weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(ValueError, match="`dense/kernel` holds weights"):
        share_weights(model)


def numeric_gradient(model, name, label, labels, step=1e-2):
    """The loss's slope as one shared value moves."""
    x = inputs(model, 16)

    def loss(change):
        state = get_state(model)
        state[name] = state[name] + np.where(labels == label, change, 0).astype("f4")
        moved = keras.models.clone_model(model)
        set_state(moved, state, get_masks(model))
        return float(np.mean((as_array(moved(x, training=False)) - 1) ** 2))

    return (loss(step) - loss(-step)) / (2 * step)


def test_a_value_moves_by_the_sum_of_its_weights_gradients():
    """Equation 3 of the paper, against differences."""
    model = keras.Sequential(
        [layer for layer in mlp().layers if layer.name[:3] != "dro"]
    )
    model.build((None, 4))
    model = pruned(scramble(model), 0.4)
    share_weights(model, bits=2)
    before = get_state(model)
    expected = {}
    for name in get_masks(model):
        labels = np.where(before[name] == 0, np.nan, before[name])
        expected[name] = {
            value: value - 0.01 * numeric_gradient(model, name, value, labels)
            for value in np.unique(labels[~np.isnan(labels)])
        }
    compiled(model, keras.optimizers.SGD(0.01))
    fit(model, 1, 16, callbacks=[SharedWeights()])
    after = get_state(model)
    for name, values in expected.items():
        for value, moved in values.items():
            got = np.unique(after[name][before[name] == value])
            np.testing.assert_allclose(got, [moved], atol=2e-5)
            assert abs(moved - value) > 1e-4


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("optimizer", cases(OPTIMIZERS, ["accumulated"]))
def test_weights_stay_shared(optimizer):
    model = shared()
    state, values = get_state(model), live_values(model)
    compiled(model, OPTIMIZERS[optimizer]())
    fit(model)  # Slots of a training before, different from weight to weight.
    set_state(model, state)
    fit(model, epochs=2, callbacks=[SharedWeights()])
    after = get_state(model)
    for name, before in values.items():
        assert len(live_values(model)[name]) <= len(before)
        assert not np.array_equal(live_values(model)[name], before)
        for value in before:
            assert len(np.unique(after[name][state[name] == value])) == 1
        assert not after[name][~get_masks(model)[name]].any()


@pytest.mark.parametrize("name", cases(["cnn", "nested", "shared_layer"], ["cnn"]))
def test_models_of_other_kinds(name):
    model = compiled(shared(ZOO[name]), **EAGER)
    before = live_values(model)
    fit(model, callbacks=[SharedWeights()])
    for name, values in live_values(model).items():
        assert len(values) <= len(before[name]) <= 4


def test_mixed_precision_with_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = shared()
        compiled(model, "adam", jit_compile=False)
    finally:
        keras.config.set_dtype_policy("float32")
    fit(model, callbacks=[SharedWeights()])
    assert all(len(values) <= 4 for values in live_values(model).values())


def test_the_optimizer_is_left_as_it_was():
    model = compiled(shared())
    fit(model, callbacks=[SharedWeights()])
    assert "apply" not in vars(model.optimizer)
    fit(model)
    assert max(len(values) for values in live_values(model).values()) > 4


def test_the_optimizer_is_left_as_it_was_after_an_interruption():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(shared())
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[SharedWeights(), Interrupt()])
    fit(model)
    assert "apply" not in vars(model.optimizer)
    assert "make_train_function" not in vars(model)
    assert max(len(values) for values in live_values(model).values()) > 4


@pytest.mark.once
def test_another_change_of_the_gradients_is_refused():
    model = compiled(shared())
    with pytest.raises(ValueError, match="Another callback changes the gradients"):
        fit(model, callbacks=[kl.ADMMPruning(0.5), SharedWeights()])


@pytest.mark.once
def test_training_improves():
    model = compiled(shared(bits=3), keras.optimizers.Adam(0.05))
    history = fit(model, epochs=8, callbacks=[SharedWeights()]).history["loss"]
    assert history[-1] < 0.7 * history[0]


@pytest.mark.once
def test_models_without_shared_weights_are_refused():
    model = compiled(pruned(scramble(mlp())))
    with pytest.raises(ValueError, match=r"Call `share_weights\(model\)` before"):
        fit(model, callbacks=[SharedWeights()])
    with pytest.raises(ValueError, match="mask_model"):
        fit(compiled(mlp()), callbacks=[SharedWeights()])


@needs_muon
def test_an_optimizer_that_mixes_weights_is_found_out():
    model = shared()
    # On single numbers Muon falls back to Adam: kernels are matrices.
    compiled(model, keras.optimizers.Muon(0.1), jit_compile=False)
    with pytest.raises(RuntimeError, match=r"weight by weight, such as SGD or Adam"):
        fit(model, callbacks=[SharedWeights()])
