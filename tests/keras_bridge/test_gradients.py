"""Gradients against finite differences."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.gradients import (
    batch_gradients,
    compiled_once,
    gradients,
    hessian_vector_product,
    input_gradients,
)
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
    set_state,
    strip_masks,
)
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.tickets import Snapshot
from tests.models_zoo import (
    arrays,
    assert_equal,
    branches,
    compiled,
    inputs,
    mlp,
    outputs,
    pruned,
    scramble,
    separable,
)


def linear():
    """Its outputs are linear in any one weight, and its loss quadratic."""
    return keras.Sequential(
        [
            keras.Input((4, 2)),
            layers.Conv1D(3, 2, kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


@pytest.mark.representative
def test_finite_differences_of_live_and_of_pruned_weights():
    model = pruned(compiled(scramble(linear())))
    x, y = inputs(model), np.random.default_rng(1).normal(size=(4, 2)).astype("float32")
    plain, state = strip_masks(model), get_state(model)

    def loss(name, position, change):
        moved = {n: array.copy() for n, array in state.items()}
        moved[name][position] += change
        set_state(plain, moved)
        # Without the penalty of the kernel.
        return ((outputs(plain, x).astype("float64") - y) ** 2).mean()

    values = gradients(model, x, y)
    assert list(values) == [n for n in state if "moving" not in n and "seed" not in n]
    masks = get_masks(model)
    assert not all(mask.all() for mask in masks.values())
    for name, gradient in values.items():
        # Differences of a quadratic are exact, however large the change.
        differences = [
            (loss(name, position, 0.5) - loss(name, position, -0.5))
            for position in np.ndindex(gradient.shape)
        ]
        np.testing.assert_allclose(
            gradient.ravel(), differences, rtol=2e-4, atol=2e-4 * np.abs(gradient).max()
        )
        if name in masks:
            assert gradient[~masks[name]].all()


@pytest.mark.parametrize("build", [mlp, separable, branches])
def test_names_and_shapes_of_all_trained_weights(build):
    model = pruned(compiled(scramble(build())))
    x = inputs(model)
    before = arrays(model)
    y = [np.ones((4, *out.shape[1:]), "float32") for out in model.outputs]
    values = gradients(model, x, y if len(y) > 1 else y[0])
    state = get_state(model)
    assert values.keys() >= get_masks(model).keys()
    assert len(values) == len(model.trainable_variables)
    for name, gradient in values.items():
        assert (gradient.shape, gradient.dtype) == (state[name].shape, "float32")
        assert gradient.any()
    assert_equal(arrays(model), before)


def test_a_weight_without_use_has_gradient_zero():
    x = keras.Input((4,))
    used, unused = layers.Dense(1, name="used")(x), layers.Dense(1, name="unused")(x)
    model = keras.Model(x, [used, unused])
    model.compile(loss=["mse", None])
    y = np.ones((4, 1), "float32")
    values = gradients(mask_model(model), inputs(model), [y, y])
    assert values["used/kernel"].all()
    assert not values["unused/kernel"].any()


def test_frozen_weights_have_one_where_they_are_masked():
    x, y = inputs(mlp()), np.ones((4, 2), "float32")
    model = pruned(compiled(scramble(mlp())))
    expected = gradients(model, x, y)
    model.layers[0].trainable = False
    values = gradients(model, x, y)
    assert list(values) == ["dense/kernel", "dense_1/kernel", "dense_1/bias"]
    for name, gradient in values.items():
        np.testing.assert_array_equal(gradient, expected[name])


@pytest.mark.parametrize(
    ("build", "batch_size"), [(linear, 1), (linear, 3), (branches, 4)]
)
def test_batches_change_nothing(build, batch_size):
    """Examples count alike, also in a last batch that is smaller."""
    model = pruned(compiled(scramble(build())))
    x = inputs(model, 7)
    y = [inputs(model, 7, seed=1)[0][:, :2] * 10] * 2
    if len(model.outputs) == 1:
        y = np.random.default_rng(1).normal(size=(7, 2)).astype("float32")
    rng = np.random.default_rng(2)
    vector = {n: rng.normal(size=mask.shape) for n, mask in get_masks(model).items()}
    for function, arguments in [
        (gradients, ()),
        (hessian_vector_product, (vector,)),
    ]:
        whole = function(model, x, y, *arguments, batch_size=7)
        parts = function(model, x, y, *arguments, batch_size=batch_size)
        assert parts.keys() == whole.keys()
        for name, array in parts.items():
            most = np.abs(whole[name]).max()
            np.testing.assert_allclose(array, whole[name], rtol=1e-4, atol=1e-5 * most)


def test_one_batch_after_another():
    model = pruned(compiled(scramble(mlp())))
    x, y = inputs(model, 7), np.ones((7, 2), "float32")
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    parts = list(batch_gradients(model, iter(batches)))
    assert [count for count, _ in parts] == [4, 3]
    for (_, found), batch in zip(parts, batches, strict=True):
        for name, gradient in gradients(model, *batch).items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-5, atol=1e-6)


def curved():
    """Smooth, so that differences of its gradients are second derivatives."""
    return keras.Sequential(
        [
            keras.Input((5, 2)),
            layers.Conv1D(3, 2, activation="tanh", kernel_regularizer="l2"),
            layers.Flatten(),
            layers.Dense(2, "softmax"),
        ]
    )


@pytest.mark.representative
def test_hessian_by_finite_differences():
    model = pruned(scramble(curved()))
    model.compile(loss="categorical_crossentropy")
    x = inputs(model, 6)
    y = np.eye(2, dtype="float32")[[0, 1, 1, 0, 1, 0]]
    state, masks = get_state(model), get_masks(model)
    rng = np.random.default_rng(3)
    # Moved along live weights only, as a pruned one would not move.
    vector = {n: rng.normal(size=mask.shape) * mask for n, mask in masks.items()}

    def gradient(size):
        moved = dict(state)
        for name, array in vector.items():
            moved[name] = (state[name] + size * array).astype("float32")
        return gradients(model, x, y, state=moved)

    product = hessian_vector_product(model, x, y, vector)
    above, below = gradient(0.01), gradient(-0.01)
    assert product.keys() == vector.keys()
    for name, found in product.items():
        expected = (above[name] - below[name]) / 0.02
        tolerance = 5e-3 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        assert found[~masks[name]].all(), "pruned weights have second derivatives too"


def test_the_hessian_is_symmetric_and_linear():
    model = pruned(scramble(curved()))
    model.compile(loss="categorical_crossentropy")
    data = inputs(model, 6), np.eye(2, dtype="float32")[[0, 1, 1, 0, 1, 0]]
    rng = np.random.default_rng(3)
    a, b = (
        {n: rng.normal(size=mask.shape) for n, mask in get_masks(model).items()}
        for _ in range(2)
    )
    ha, hb = (hessian_vector_product(model, *data, vector) for vector in (a, b))
    both = {name: a[name] + 2 * b[name] for name in a}
    hab = hessian_vector_product(model, *data, both)

    def dot(one, other):
        return sum((one[name] * other[name]).sum() for name in one)

    assert dot(b, ha) == pytest.approx(dot(a, hb), rel=1e-4)
    for name, product in hab.items():
        expected = ha[name] + 2 * hb[name]
        np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-4)


def test_the_hessian_of_a_quadratic_is_constant():
    """A linear layer and the squared error: 2/n X^T X for each of the outputs."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])
    model.compile(loss="mse")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    y = np.zeros((5, 2), "float32")
    vector = {"d/kernel": np.random.default_rng(1).normal(size=(3, 2))}
    product = hessian_vector_product(mask_model(model), x, y, vector)
    expected = x.T @ x @ vector["d/kernel"] / 5
    np.testing.assert_allclose(product["d/kernel"], expected, rtol=1e-4, atol=1e-5)


def test_a_vector_that_does_not_fit_is_refused():
    model = mask_model(compiled(mlp()))
    x, y = inputs(model), np.ones((4, 2), "float32")
    for vector in ({"dense/kernel": np.ones((2, 2))}, {"other": np.ones(2)}, {}):
        with pytest.raises(ValueError, match=r"some of the weights.*Received: \[?'?"):
            hessian_vector_product(model, x, y, vector)


def test_at_other_weights_than_the_models_own():
    model, other = (pruned(compiled(scramble(mlp(), seed=s))) for s in (1, 2))
    x, y = inputs(model), np.ones((4, 2), "float32")
    before = arrays(model)
    state = get_state(other)
    found = gradients(model, x, y, state=state)
    assert_equal(arrays(model), before)
    set_state(other, state, get_masks(model))
    for name, gradient in gradients(other, x, y).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-5, atol=1e-6)
    lost = {name: array for name, array in state.items() if name != "dense/bias"}
    with pytest.raises(ValueError, match="dense/bias"):
        gradients(model, x, y, state=lost)
    assert_equal(arrays(model), before)


def test_pruned_weights_count_as_zero():
    """Whatever a training loop has left in their variables."""
    model = pruned(compiled(scramble(mlp())))
    x, y = inputs(model), np.ones((4, 2), "float32")
    expected = gradients(model, x, y)
    for mask, weight in named_masks(model).values():
        weight.assign(np.where(read(mask), read(weight), 5))
    for name, gradient in gradients(model, x, y).items():
        np.testing.assert_array_equal(gradient, expected[name])


def test_compiled_once_gives_the_same():
    model = pruned(compiled(scramble(mlp())))
    x, y = inputs(model), np.ones((4, 2), "float32")
    other = {name: array / 2 for name, array in get_state(model).items()}

    def derivatives(state):
        vector = gradients(model, x, y, state=state)
        masked = {name: vector[name] for name in get_masks(model)}
        return {
            **vector,
            **{
                f"H {n}": a
                for n, a in hessian_vector_product(
                    model, x, y, masked, state=state
                ).items()
            },
        }

    expected = [derivatives(None), derivatives(other)]
    with compiled_once():
        found = [derivatives(None), derivatives(other)]
        model.layers[0].trainable = False
        assert "dense/bias" not in gradients(model, x, y)
    for one, two in zip(expected, found, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-7)


def test_another_objective_needs_no_loss():
    model = mask_model(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    x = np.arange(6, dtype="float32").reshape(2, 3)

    def total(model, x, y):
        return keras.ops.sum(model(x, training=False)) / len(x)

    values = gradients(model, x, None, scalar=total)
    np.testing.assert_allclose(values["dense/kernel"], np.stack([x.mean(0)] * 2, 1))
    np.testing.assert_allclose(values["dense/bias"], [1, 1])


@pytest.mark.parametrize("where", ["data", "weights"])
def test_what_is_not_finite_is_refused(where):
    model = mask_model(compiled(mlp()))
    x, y = inputs(model), np.ones((4, 2), "float32")
    if where == "data":
        x[2, 1] = np.nan
    else:
        model.layers[-1].bias.assign([np.inf, 0])
    vector = {"dense/kernel": np.ones((4, 6))}
    with pytest.raises(FloatingPointError, match=r"dense/kernel.*not finite"):
        gradients(model, x, y)
    if where == "data":
        with pytest.raises(FloatingPointError, match=r"dense/kernel.*not finite"):
            hessian_vector_product(model, x, y, vector)


def test_penalties_on_outputs_do_not_pile_up():
    """Keras keeps the losses of a call until the next one."""
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(2, activity_regularizer="l2")]
    )
    model = mask_model(compiled(model))
    x, y = inputs(model), np.ones((4, 2), "float32")
    first = gradients(model, x, y)["dense/kernel"]
    np.testing.assert_array_equal(gradients(model, x, y)["dense/kernel"], first)
    batches = [(x, y)] * 3
    for _, found in batch_gradients(model, batches):
        np.testing.assert_array_equal(found["dense/kernel"], first)


def test_a_model_without_loss_is_refused():
    with pytest.raises(ValueError, match=r"`model.compile\(loss=...\)`"):
        gradients(mask_model(mlp()), np.ones((1, 4)), np.ones((1, 2)))


def test_derivatives_of_a_snapshot():
    """As GraSP takes them: Hg, at the weights of before training."""
    model = pruned(compiled(scramble(curved())))
    masks, initial = get_masks(model), get_state(model)
    final = {n: array * 2 for n, array in initial.items()}
    set_state(model, final)
    data = inputs(model, 5), np.ones((5, 2), "float32")
    snapshot = Snapshot(
        masks, final, initial, initial, np.random.default_rng(0), model, data
    )
    products = {}
    for name, state in [("final", None), ("initial", initial)]:
        vector = snapshot.gradients(state)
        assert vector.keys() == masks.keys()
        products[name] = snapshot.hessian_vector_product(vector, state)
        set_state(model, initial if state else final)
        for weight, found in gradients(model, *data).items():
            if weight in masks:
                np.testing.assert_allclose(found, vector[weight], rtol=1e-5, atol=1e-7)
        set_state(model, final)
    for name in masks:
        assert (products["final"][name] != products["initial"][name]).any()
    lacking = dataclasses.replace(snapshot, data=None)
    for method in (lacking.gradients, lambda: lacking.hessian_vector_product({})):
        with pytest.raises(ValueError, match=r"training data.*data=\(x, y\)"):
            method()


def two_inputs():
    one, other = keras.Input((3,), name="one"), keras.Input((2,), name="other")
    both = layers.Concatenate()([layers.Dense(3, "tanh")(one), other])
    return keras.Model({"one": one, "other": other}, layers.Dense(2)(both))


@pytest.mark.representative
@pytest.mark.parametrize("build", [linear, two_inputs])
def test_finite_differences_of_inputs(build):
    model = pruned(compiled(scramble(build())))
    x, y = inputs(model), outputs(model, inputs(model)) + 1
    before = arrays(model)
    # The last batch is smaller.
    found = input_gradients(model, x, y, batch_size=3)
    keras.tree.assert_same_structure(found, x)
    assert_equal(arrays(model), before)

    def loss(x):
        return ((outputs(model, x).astype("float64") - y) ** 2).reshape(len(y), -1)

    for index, array in enumerate(keras.tree.flatten(x)):
        for position in list(np.ndindex(array.shape))[::7]:
            one, other = (keras.tree.map_structure(np.copy, x) for _ in range(2))
            keras.tree.flatten(one)[index][position] += 1e-2
            keras.tree.flatten(other)[index][position] -= 1e-2
            slope = (loss(one) - loss(other)).mean(1).sum() / 2e-2
            gradient = keras.tree.flatten(found)[index][position]
            np.testing.assert_allclose(gradient, slope, rtol=1e-2, atol=1e-3)
