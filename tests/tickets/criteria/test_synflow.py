"""Synaptic flow: its conservation, and the layers that it keeps."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_lottery import criteria
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
)
from keras_lottery.pruning import prune
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Global
from tests.models_zoo import ZOO, arrays, as_array, assert_equal, residual, scramble

# As by magnitude, in narrow networks.
pytestmark = pytest.mark.filterwarnings("ignore:No weights are left")


def snapshot(model, data=None):
    state = get_state(model)
    rng = np.random.default_rng(0)
    return Snapshot(get_masks(model), state, state, state, rng, model, data)


def synflow(model):
    return criteria.get("synflow")(snapshot(model))


def assert_conserved(scores, units):
    """Flow into each unit, by its last axis, and out of it, by the last but one."""
    for before, after in units:
        flow_in = scores[before].sum(axis=tuple(range(scores[before].ndim - 1)))
        out = np.moveaxis(scores[after], -2, 0).reshape(scores[after].shape[-2], -1)
        flow_out = out.sum(1).reshape(-1, len(flow_in)).sum(0)
        np.testing.assert_allclose(flow_in, flow_out, rtol=1e-4)
    totals = [array.sum() for array in scores.values()]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-4)


MLP = mask_model(
    keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, "relu", name="a"),
            layers.Dense(4, "tanh", name="b"),
            layers.Dense(3, "softmax", name="c"),
        ]
    )
)


@settings(max_examples=10)
@given(seed=st.integers(0, 99), sparsity=st.sampled_from([0.0, 0.3]))
def test_flow_is_conserved_in_a_dense_network(seed, sparsity):
    dense = {name: np.ones(mask.shape) for name, mask in get_masks(MLP).items()}
    made = snapshot(scramble(MLP, seed))
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(m.shape) >= sparsity for name, m in dense.items()}
    final = {n: array * masks.get(n, 1) for n, array in made.final.items()}
    scores = criteria.get("synflow")(dataclasses.replace(made, final=final))
    units = [("a/kernel", "b/kernel"), ("b/kernel", "c/kernel")]
    assert_conserved(scores, units)
    w = [np.abs(final[f"{name}/kernel"]) for name in "abc"]
    flow = w[0].sum(0) @ w[1] @ w[2].sum(1)
    assert scores["a/kernel"].sum() == pytest.approx(flow, rel=1e-4)


def test_flow_is_conserved_in_a_convolutional_network():
    model = scramble(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Rescaling(1 / 255, offset=-1),
                layers.Conv2D(4, 3, use_bias=False, name="a"),
                layers.BatchNormalization(),
                layers.ReLU(max_value=6),
                layers.Conv2D(3, 2, activation="gelu", name="b"),
                layers.AveragePooling2D(3),
                layers.Flatten(),
                layers.Dense(2, name="c"),
                layers.Softmax(),
            ]
        )
    )
    model = mask_model(model)
    before, x = arrays(model), np.ones((2, 6, 6, 2))
    outputs = as_array(model(x, training=False))
    scores = synflow(model)
    assert_conserved(scores, [("a/kernel", "b/kernel"), ("b/kernel", "c/kernel")])
    assert all(score.all() for score in scores.values())
    assert_equal(arrays(model), before)
    np.testing.assert_array_equal(as_array(model(x, training=False)), outputs)


def narrow(depth=6):
    """Wide at both ends, and two units wide between: a layer is soon lost."""
    hidden = [layers.Dense(8, "relu", name=f"hidden_{i}") for i in range(depth)]
    return keras.Sequential(
        [
            keras.Input((200,)),
            layers.Dense(100, "relu", name="first"),
            *hidden,
            layers.Dense(10, name="output"),
        ]
    )


def test_synflow_loses_no_layer_where_magnitude_does():
    keras.utils.set_random_seed(0)
    model = mask_model(narrow())
    left = {}
    for criterion, rounds in (("magnitude", 1), ("synflow", 50)):
        pruned = mask_model(model)
        prune(pruned, 0.999, criterion, Global(floor=0), rounds=rounds)
        left[criterion] = [int(m.sum()) for m in get_masks(pruned).values()]
    assert sum(left["magnitude"]) == sum(left["synflow"])
    assert min(left["magnitude"]) == 0
    assert min(left["synflow"]) > 0
    scores = synflow(pruned)
    assert scores["output/kernel"].sum() > 0


def test_rounds_are_what_keeps_the_layers():
    keras.utils.set_random_seed(0)
    model = mask_model(narrow())
    prune(model, 0.999, "synflow", Global(floor=0), rounds=1)
    with pytest.raises(ValueError, match="no path of weights"):
        synflow(model)


@pytest.mark.parametrize("build", [*ZOO.values(), residual], ids=lambda b: b.__name__)
def test_every_model_has_scores_or_is_refused(build):
    model = mask_model(scramble(build()))
    before = arrays(model)
    if build.__name__ in ("nested", "branches"):
        # A LayerNormalization, and words: twice as much is another word.
        with pytest.raises(ValueError, match="linear without its activations"):
            synflow(model)
    else:
        scores = synflow(model)
        assert all((s >= 0).all() and s.any() for s in scores.values())
    assert_equal(arrays(model), before)


def test_neither_loss_nor_data_are_needed_and_shapes_may_come_from_data():
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(2, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    model = mask_model(model)
    with pytest.raises(ValueError, match=r"shapes of the inputs.*`data=\(x, y\)`"):
        prune(model, 0.5, "synflow")
    data = np.full((1, 5, 5, 1), np.nan), None
    prune(model, 0.5, "synflow", data=data)
    assert get_masks(model).kept == 11


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]
)
def test_dtype_policies(policy):
    """Computed in float32: that of a wide network would overflow float16."""

    def network():
        stack = [layers.Dense(100, "relu"), layers.Dense(100, "relu"), layers.Dense(3)]
        return mask_model(keras.Sequential([keras.Input((500,)), *stack]))

    try:
        keras.config.set_dtype_policy(policy)
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    same = network()
    for variable, own in zip(model.weights, same.weights, strict=True):
        value = np.ones(own.shape) if "mask" in own.name else np.full(own.shape, 0.25)
        variable.assign(value)
        own.assign(value)
    scores, expected = synflow(model), synflow(same)
    for name, array in scores.items():
        assert expected[name].sum() > np.finfo("float16").max
        np.testing.assert_allclose(array.astype("float32"), expected[name], rtol=0.01)
    assert {layer.dtype_policy.name for layer in model.layers} == {policy}


def deep(dtype="float32"):
    """Its flow is about 1e60, beyond float32."""
    stack = [layers.Dense(8, "relu", dtype=dtype) for _ in range(30)]
    model = mask_model(keras.Sequential([keras.Input((8,)), *stack]))
    rng = np.random.default_rng(0)
    for _, weight in named_masks(model).values():
        weight.assign(20 * rng.normal(size=weight.shape))
    return model


def shares(model):
    """Each weight's share of the flow."""
    scores = synflow(model)
    return {name: array / array.sum() for name, array in scores.items()}


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_flow_beyond_float32(batch):
    model = deep()
    found = shares(model)
    weights = [
        np.abs(np.array(w), dtype="float64") for _, w in named_masks(model).values()
    ]
    before, after = [np.ones(8)], [np.ones(8)]
    for forwards, backwards in zip(weights, weights[::-1], strict=True):
        before.append(before[-1] @ forwards)
        after.append(backwards @ after[-1])
    assert before[-1].sum() > np.finfo("float32").max
    for i, name in enumerate(found):
        score = before[i][:, None] * weights[i] * after[-2 - i]
        np.testing.assert_allclose(found[name], score / score.sum(), rtol=1e-4)
    if batch:
        model = keras.Sequential([keras.Input(batch_shape=(batch, 8)), *model.layers])
        again = shares(model)
        for name, array in found.items():
            np.testing.assert_allclose(again[name], array, rtol=1e-4)


@pytest.mark.parametrize(
    ("value", "message"),
    [(1e30, "beyond what its dtype holds"), (np.nan, "needs finite weights")],
)
def test_what_cannot_be_computed_is_refused(value, message):
    model = mask_model(narrow())
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, value))
    with pytest.raises(ValueError, match=message):
        synflow(model)


@pytest.mark.tensorflow
def test_float64_holds_larger_flows():
    model = deep("float64")
    for _, weight in named_masks(model).values():
        weight.assign(1e4 * np.array(weight))
    assert all(
        np.isfinite(score).all() and score.any() for score in synflow(model).values()
    )
