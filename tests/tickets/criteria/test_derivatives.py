"""Scores made of derivatives, against finite differences of the loss."""

import dataclasses
import itertools
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery import criteria
from keras_lottery.keras_bridge.gradients import compiled_once, gradients
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    set_state,
)
from keras_lottery.pruning import prune, prune_snapshot
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.criteria.grasp import Grasp
from tests.models_zoo import as_array

PROBABILITIES = "sparse_categorical_crossentropy"
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def snapshot(
    activation="tanh",
    loss=LOGITS,
    head=None,
    classes=3,
    examples=6,
    seed=0,
    normalised=False,
    **hidden,
):
    """A small network with data, a fifth of it pruned."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(2, 3, activation=activation, name="conv", **hidden),
            *[layers.BatchNormalization(name="norm")] * normalised,
            layers.Flatten(),
            layers.Dense(4, activation, name="dense"),
            layers.Dense(classes, head, name="output"),
        ]
    )
    model = mask_model(model)
    model.compile(loss=loss)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(scale=0.7, size=variable.shape))
    prune(model, 0.2, "random")
    x = rng.normal(size=(examples, 4, 4, 1)).astype("float32")
    y = rng.integers(0, classes, examples)
    state = get_state(model)
    return Snapshot(get_masks(model), state, state, state, rng, model, (x, y))


def each_weight(made):
    """(name, position) of all that is left."""
    for name, mask in made.masks.items():
        yield from ((name, tuple(position)) for position in np.argwhere(mask))


def moved(made, name, position, change):
    state = {n: array.copy() for n, array in made.final.items()}
    state[name][position] += change
    return state


def loss_at(made, state):
    """In training mode, in double precision of what float32 gives."""
    set_state(made.shared_model, state)
    x, y = made.data
    outputs = as_array(made.shared_model(x, training=True)).astype("float64")
    set_state(made.shared_model, made.final)
    log = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    return -log[np.arange(len(y)), y].mean()


def assert_close(made, scores, expected, rtol, every=1):
    """Of every weight that is left, or of every third one, in all layers."""
    chosen = itertools.islice(each_weight(made), 0, None, every)
    found, wanted = np.array([(scores[n][p], expected(n, p)) for n, p in chosen]).T
    atol = rtol * max(abs(scores[n][m]).max() for n, m in made.masks.items())
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


def slopes(made, change=1e-2):
    def slope(name, position):
        above, below = (
            loss_at(made, moved(made, name, position, c)) for c in (change, -change)
        )
        return (above - below) / (2 * change)

    return slope


def test_snip_is_the_slope_of_the_loss_in_the_mask():
    made = snapshot(normalised=True)
    slope = slopes(made)
    expected = lambda n, p: abs(made.final[n][p] * slope(n, p))  # noqa: E731
    scores = criteria.get("snip")(made)
    assert_close(made, scores, expected, 2e-3, every=3)
    for name, array in criteria.get("iterative_snip")(made).items():
        np.testing.assert_array_equal(array, scores[name])


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_training_mode_leaves_the_model_as_it_is(name):
    made = snapshot(normalised=True)
    state = {**made.final, "norm/moving_mean": np.full(2, 5.0, "float32")}
    made = dataclasses.replace(made, final=state)
    before = get_state(made.model)
    criteria.get(name)(made)
    after = get_state(made.shared_model)
    for variable, array in before.items():
        np.testing.assert_array_equal(after[variable], array)


def test_grasp_leaves_penalties_out():
    """Those of weights, and of outputs, as of the network without them."""
    penalty = keras.regularizers.L2(10.0)
    kinds = {"kernel_regularizer": penalty, "activity_regularizer": penalty}
    made, other = snapshot(**kinds), snapshot()
    assert made.shared_model.losses
    scores, others = Grasp()(made), Grasp()(other)
    for name, array in scores.items():
        np.testing.assert_allclose(others[name], array, rtol=1e-5, atol=1e-9)
    assert len(made.shared_model.losses) == 1
    prune(made.shared_model, 0.6, "grasp", data=made.data)
    prune(other.shared_model, 0.6, "grasp", data=made.data)
    assert get_masks(made.shared_model) == get_masks(other.shared_model)


@pytest.mark.once
@pytest.mark.parametrize("name", ["snip", "grasp", "taylor"])
def test_models_without_a_loss_are_refused(name):
    made = snapshot()
    made.shared_model.compiled = False
    with pytest.raises(ValueError, match=r"Call `model.compile\(loss"):
        criteria.get(name)(made)


@pytest.mark.parametrize(
    ("temperature", "head"), [(1, None), (5, None), (5, "softmax")]
)
def test_grasp_is_the_slope_of_the_gradient_flow(temperature, head):
    """2 w (H g), by differences of the gradient of what is left."""
    loss = LOGITS if head is None else PROBABILITIES
    made = snapshot(loss=loss, head=head, normalised=temperature == 5)

    def softened(model, x, y):
        logits = model(x, training=True)
        if head:
            logits = keras.ops.log(logits)
        return temperature * LOGITS(y, logits / temperature)

    def flow(state):
        found = gradients(made.shared_model, *made.data, scalar=softened, state=state)
        return sum(
            (found[n].astype("float64")[mask] ** 2).sum()
            for n, mask in made.masks.items()
        )

    def expected(name, position):
        above, below = (flow(moved(made, name, position, c)) for c in (0.01, -0.01))
        return made.final[name][position] * (above - below) / 0.04

    with compiled_once():
        assert_close(made, Grasp(temperature)(made), expected, 5e-3, every=3)


@pytest.mark.parametrize("head", [None, "softmax"])
def test_grasp_in_mixed_precision(head):
    scores = []
    try:
        for policy in ("float32", "mixed_float16"):
            keras.config.set_dtype_policy(policy)
            made = snapshot(loss=PROBABILITIES if head else LOGITS, head=head)
            scores.append(Grasp()(made))
    finally:
        keras.config.set_dtype_policy("float32")
    for name, array in scores[0].items():
        np.testing.assert_allclose(
            scores[1][name], array, rtol=0.05, atol=0.02 * abs(array).max()
        )


def test_grasp_has_no_temperature_where_there_are_no_classes():
    made = snapshot(loss="mse", classes=1)
    scores, others = Grasp(200)(made), Grasp(1)(made)
    for name, array in scores.items():
        np.testing.assert_array_equal(array, others[name])


def test_grasp_of_several_outputs_with_one_loss():
    """Of the same output twice: twice the loss, four times the scores."""
    made = snapshot()
    (x, y), (output,) = made.data, made.shared_model.outputs
    twice = keras.Model(made.shared_model.inputs, {"a": output, "b": output})
    twice.compile(loss=LOGITS)
    other = dataclasses.replace(made, shared_model=twice, data=(x, {"a": y, "b": y}))
    scores, others = Grasp()(made), Grasp()(other)
    for name, array in scores.items():
        np.testing.assert_allclose(others[name], 4 * array, rtol=1e-3, atol=1e-12)


def test_grasp_keeps_what_the_gradient_flow_needs():
    """What it prunes first leaves more of the flow than what it prunes last."""
    made = snapshot()
    scores = Grasp(1)(made)

    def flow_without(criterion):
        state = {n: array.copy() for n, array in made.final.items()}
        masks, _ = prune_snapshot(made, 0.3, criterion)
        for name, mask in masks.items():
            state[name] = state[name] * mask
        found = gradients(made.shared_model, *made.data, state=state)
        return sum((found[n][mask] ** 2).sum() for n, mask in masks.items())

    best = flow_without(lambda s: scores)
    worst = flow_without(lambda s: {n: -a for n, a in scores.items()})
    assert best > worst


def example_gradients(made):
    for x, y in zip(*made.data, strict=True):
        yield gradients(made.shared_model, x[None], y[None])


def test_taylor_and_fisher_are_means_over_examples():
    made = snapshot(normalised=True)
    with compiled_once():
        found = list(example_gradients(made))
    taylor, fisher = (criteria.get(name)(made) for name in ("taylor", "fisher"))
    for name, weight in ((n, made.final[n].astype("float64")) for n in made.masks):
        stacked = np.stack([g[name] for g in found]).astype("float64")
        means = abs(weight * stacked).mean(0), (weight * stacked) ** 2
        np.testing.assert_allclose(taylor[name], means[0], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(
            fisher[name], means[1].mean(0) / 2, rtol=1e-4, atol=1e-8
        )


class Even:
    """Uniform numbers that lie evenly: means of what is drawn are nearly exact."""

    def __init__(self):
        self.drawn = -1

    def random(self, shape, dtype):
        size = int(np.prod(shape))
        steps = self.drawn + 1 + np.arange(size)
        self.drawn = steps[-1]
        # Weyl's sequence, one of its own for each of the last axis.
        roots = np.sqrt(np.array([2, 3, 5]))[np.arange(size) % shape[-1]]
        return ((steps // shape[-1] + 0.5) * roots % 1).reshape(shape).astype(dtype)


def curvature(made):
    """The exact second derivatives: differences of exact first ones."""

    def second(name, position):
        above, below = (
            gradients(
                made.shared_model, *made.data, state=moved(made, name, position, c)
            )
            for c in (0.01, -0.01)
        )
        return (above[name][position] - below[name][position]) / 0.02

    return second


@pytest.mark.parametrize(
    ("loss", "head", "classes"),
    [
        (LOGITS, None, 3),
        ("sparse_categorical_crossentropy", "softmax", 3),
        ("mse", None, 1),
        (keras.losses.BinaryCrossentropy(from_logits=True), None, 1),
        ("binary_crossentropy", "sigmoid", 1),
    ],
)
def test_obd_has_the_exact_second_derivatives(loss, head, classes, monkeypatch):
    """In a network of ReLUs, whose outputs are linear in each single weight."""
    monkeypatch.setattr(sys.modules[criteria.obd.__module__], "BATCHES", 300)
    made = snapshot("relu", loss, head, classes, examples=3, seed=2)
    if classes == 1:
        made = dataclasses.replace(made, data=(made.data[0], made.data[1][:, None]))
    made = dataclasses.replace(made, rng=Even())
    second = curvature(made)
    expected = lambda n, p: second(n, p) * made.final[n][p] ** 2 / 2  # noqa: E731
    scores = criteria.get("obd")(made)
    assert all((scores[n] >= 0).all() and scores[n].any() for n in scores)
    with compiled_once():
        assert_close(made, scores, expected, 0.03, every=3)


def test_obd_refuses_losses_whose_curvature_it_does_not_know():
    made = snapshot(loss="mae", classes=1)
    with pytest.raises(ValueError, match=r"'obd' needs.*mean_squared_error.*loss='?"):
        criteria.get("obd")(made)


@pytest.mark.parametrize("name", ["snip", "grasp", "taylor", "fisher", "obd"])
def test_models_are_pruned_with_data_and_not_without(name):
    made = snapshot()
    before = get_masks(made.shared_model)
    with pytest.raises(ValueError, match=r"Pass `data=\(x, y\)`"):
        prune(made.shared_model, 0.5, name)
    assert get_masks(made.shared_model) == before
    prune(made.shared_model, 0.5, name, data=made.data)
    assert get_masks(made.shared_model).kept == round(before.size / 2)


X, Y = np.ones((6, 4, 4, 1)), np.ones(6)


@pytest.mark.once
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "data of type ndarray"),
        ((X[:0], Y[:0]), "Received: none"),
        ((X, Y[:5]), r"one length .* \[\(6, 4, 4, 1\), \(5,\)\]"),
        ((X, 1.0), r"\(6, 4, 4, 1\), \(\)"),
        ((3, 4), "Received: none"),
    ],
)
def test_data_that_are_no_examples_are_refused(data, message):
    made = dataclasses.replace(snapshot(), data=data)
    for name in ("snip", "grasp", "taylor", "fisher", "obd"):
        with pytest.raises(ValueError, match=message):
            criteria.get(name)(made)
