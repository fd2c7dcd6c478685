"""The small BERT."""

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import models

rng = np.random.default_rng(0)
WORDS = rng.integers(5, 40, (4, 8))


def small(build=models.bert_small, length=8, **how):
    sizes = {"vocabulary": 40} if build is models.bert_small else {"classes": 40}
    return build((length,), **sizes, blocks=2, width=32, seed=0, **how)


@pytest.fixture(scope="module")
def classifier():
    return small(classes=3)


@pytest.mark.once
@pytest.mark.parametrize(
    ("build", "parameters"),
    [(models.bert_small, 1_651_098), (models.bert_small_mlm, 1_664_512)],
)
def test_sizes(build, parameters, monkeypatch):
    monkeypatch.setattr("keras_lottery.papers.models.bert._normal", lambda: "zeros")
    model = build()
    assert model.count_params() == parameters
    # Embeddings, normalisation and heads are not pruned.
    masked = kl.mask_model(model, models.recipe(build).prunable)
    assert kl.get_masks(masked).size == 3 * 12 * 128**2
    assert all(name.startswith("block_") for name in kl.get_masks(masked))


@pytest.mark.once
def test_the_seed_draws_the_weights():
    first, again = small(), small()
    for one, two in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    kernels = [keras.ops.convert_to_numpy(w) for w in first.weights]
    kernels = [w for w in kernels if w.ndim > 1 and w.any()]
    # Of queries, keys and values, too.
    assert len({w.tobytes() for w in kernels}) == len(kernels) == 15
    # Two deviations of 0.02, of which the cut leaves 0.88.
    assert np.concatenate([w.ravel() for w in kernels]).std() == pytest.approx(
        0.88 * 0.02, rel=0.02
    )


def test_padding_changes_nothing(classifier):
    padded = np.pad(WORDS[:, :5], ((0, 0), (0, 3)))
    short = small(length=5, classes=3)
    for own, other in zip(short.weights, classifier.weights, strict=True):
        own.assign(keras.ops.convert_to_numpy(other)[: own.shape[0]])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(classifier(padded)),
        keras.ops.convert_to_numpy(short(WORDS[:, :5])),
        atol=1e-5,
    )
    other = np.where(padded == 0, 7, padded)
    assert not np.allclose(classifier(padded), classifier(other), atol=1e-5)


def test_masked_words_are_read_from_left_to_right():
    model = small(models.bert_small_mlm, masked=2)
    rows = WORDS.copy()
    rows[:, [2, 6]] = 3
    both = keras.ops.convert_to_numpy(model(rows))
    assert both.shape == (4, 2, 40)
    # Turned round, the words at both places are the other way round, too, but for
    # what the positions do.
    positions = model.get_layer("positions")
    positions.embeddings.assign(0 * positions.embeddings)
    both = keras.ops.convert_to_numpy(model(rows))
    turned = keras.ops.convert_to_numpy(model(rows[:, ::-1]))
    np.testing.assert_allclose(turned[:, ::-1], both, atol=1e-5)
    assert np.abs(both[:, 0] - both[:, 1]).max() < 1e-5  # both read the same
    places = model.get_layer("positions")
    places.embeddings.assign(rng.normal(size=places.embeddings.shape))
    both = keras.ops.convert_to_numpy(model(rows))
    rows[:, 6] = 9
    rows[:, 1] = 3
    moved = keras.ops.convert_to_numpy(model(rows))
    assert not np.allclose(moved[:, 0], both[:, 0], atol=1e-3)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"input_shape": (28, 28, 1)}, "input_shape"),
        ({"width": 40}, "width"),
        ({"blocks": 0}, "blocks"),
        ({"vocabulary": 0}, "vocabulary"),
        ({"classes": 0}, "classes"),
    ],
)
def test_wrong_sizes_are_named(arguments, named):
    with pytest.raises(ValueError, match=f"{named}="):
        models.bert_small(**arguments)


@pytest.mark.once
def test_recipes_fall_to_zero():
    for build in (models.bert_small, models.bert_small_mlm):
        recipe = models.recipe(build)
        rate = models.Steps(
            recipe.learning_rate, warm_up=recipe.warm_up, end=recipe.steps
        )
        assert float(rate(recipe.steps)) == float(rate(recipe.steps + 5)) == 0
        half = float(rate(recipe.steps // 2))
        assert half == pytest.approx(recipe.learning_rate / 2)
    model = models.compile_model(small(classes=3), models.recipe("bert_small"))
    assert model.optimizer._learning_rate.end == 6_000
    with pytest.raises(ValueError, match="end="):
        models.Steps(0.1, end=0)
