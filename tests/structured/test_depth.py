"""Whole blocks, dropped by how little they change."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_masks
from tests.models_zoo import scramble

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


def block(name, width=6):
    """A residual block; scaled, it changes more or less of what it reads."""
    inputs = keras.Input((6,))
    x = layers.Dense(4, "relu", name="expand")(inputs)
    x = layers.Dense(width, name="project")(x)
    x = layers.Add()([inputs, x]) if width == 6 else x
    return keras.Model(inputs, x, name=name)


def network(sequential=False):
    names = ("first", "second", "third")
    steps = [*map(block, names), block("narrow", 3), layers.Dense(2, name="out")]
    if sequential:
        made = scramble(keras.Sequential([keras.Input((6,)), *steps]))
    else:
        x = inputs = keras.Input((6,))
        for step in steps:
            x = step(x)
        made = scramble(keras.Model(inputs, x))
    made.get_layer("second").get_layer("project").kernel.assign(np.zeros((4, 6)))
    made.get_layer("second").get_layer("project").bias.assign(np.full(6, 1e-3))
    return made


def outputs(model, x=X):
    return keras.ops.convert_to_numpy(model(x))


@pytest.mark.parametrize("sequential", [False, True])
def test_the_block_that_does_least_goes(sequential):
    model = network(sequential)
    small, report = kl.drop_blocks(model, 1, X, return_report=True)
    # `narrow` makes another shape, and `out` is not made of others.
    assert list(report.influence) == ["first", "second", "third"]
    assert report.dropped == ("second",)
    assert "second  0.0000  dropped" in str(report)
    np.testing.assert_allclose(outputs(small), outputs(model), atol=0.05)
    x = model.get_layer("third")(model.get_layer("first")(X))
    expected = model.get_layer("out")(model.get_layer("narrow")(x))
    np.testing.assert_allclose(
        outputs(small), keras.ops.convert_to_numpy(expected), atol=1e-6
    )


def test_influence_is_one_less_the_cosine():
    model = network()
    _, report = kl.drop_blocks(model, 2, X, return_report=True)
    before = X.astype("float64")
    after = outputs(model.get_layer("first")).astype("float64")
    cosine = (before * after).sum(1) / (
        np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    )
    assert report.influence["first"] == pytest.approx(1 - cosine.mean(), rel=1e-4)
    assert len(report.dropped) == 2 and "second" in report.dropped


@pytest.mark.once
def test_masks_and_the_given_model_stay():
    model = kl.mask_model(network())
    kl.prune(model, 0.5)
    before = outputs(model)
    small = kl.drop_blocks(model, 1, X, blocks=["first", "third"])
    masks = get_masks(model)
    left = get_masks(small)
    assert len(left) == len(masks) - 2
    assert any(name.startswith("second/") for name in left)
    for name, mask in left.items():
        np.testing.assert_array_equal(mask, masks[name])
    np.testing.assert_array_equal(outputs(model), before)


@pytest.mark.once
def test_a_block_that_is_used_twice_stays():
    inputs = keras.Input((6,))
    shared, once, last = block("shared"), block("once"), block("last")
    model = keras.Model(inputs, shared(last(once(shared(inputs)))))
    _, report = kl.drop_blocks(model, 1, X, return_report=True)
    assert list(report.influence) == ["once", "last"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"count": 3}, "count=3, and .* blocks .'first', 'second', 'third'"),
        ({"count": 0}, "count=0"),
        ({"blocks": "fourth"}, "`blocks` names 'fourth'"),
        ({"blocks": "first"}, "count=1, and of .*'first'"),
    ],
)
def test_what_cannot_be_dropped_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        kl.drop_blocks(network(), **{"count": 1, "data": X, **how})


@pytest.mark.once
def test_a_block_that_makes_zeros_changes_all_but_zeros():
    def block(name, factor):
        inputs = keras.Input((3, 6))
        same = layers.Dense(6, use_bias=False, kernel_initializer="identity")
        return keras.Model(inputs, factor * same(inputs), name=name)

    inputs = keras.Input((3, 6))
    model = keras.Model(inputs, block("last", 0.0)(block("first", 1.0)(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 3, 6))
    x[:, 2] = 0
    _, report = kl.drop_blocks(model, 1, x, return_report=True)
    assert report.influence == pytest.approx({"first": 0, "last": 2 / 3}, abs=1e-6)


@pytest.mark.once
def test_a_block_among_fewer_positions_counts_as_much():
    """Each block's mean is over its own vectors, however large its pictures are."""

    def block(name):
        inputs = keras.Input((None, None, 3))
        x = layers.Add()([inputs, layers.Conv2D(3, 1, name="conv")(inputs)])
        return keras.Model(inputs, x, name=name)

    inputs = keras.Input((8, 8, 3))
    x = layers.MaxPooling2D(4)(block("early")(inputs))
    model = scramble(keras.Model(inputs, block("late")(x)))
    pictures = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    _, report = kl.drop_blocks(model, 1, pictures, return_report=True)
    before = outputs(keras.Model(inputs, x), pictures).astype("float64")
    after = outputs(model, pictures).astype("float64")
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    cosine = (before * after).sum(-1) / norms
    assert report.influence["late"] == pytest.approx(1 - cosine.mean(), rel=1e-4)
