"""Calibration, and adversarial examples."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.study.analysis import calibration_error, fast_gradient_sign
from tests.models_zoo import arrays, assert_equal


@pytest.mark.once
@given(seed=st.integers(0, 100), bins=st.integers(1, 20), n=st.integers(1, 60))
def test_the_calibration_error_is_that_of_its_formula(seed, bins, n):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.5, 1, 2], n)
    labels = rng.integers(0, 3, n)
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    error = 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            accuracy = (predicted == labels)[inside].mean()
            error += inside.sum() / n * abs(accuracy - confidence[inside].mean())
    assert calibration_error(probabilities, labels, bins) == pytest.approx(error)
    assert calibration_error(probabilities, labels[:, None], bins) == pytest.approx(
        error
    )


@pytest.mark.once
@pytest.mark.parametrize(
    ("probabilities", "labels", "name"),
    [
        ([[2.0, -1.0]], [0], "probabilities"),  # logits
        ([[0.6, 0.6]], [0], "probabilities"),
        (np.zeros((0, 2)), [], "probabilities"),
        ([[0.5, 0.5]], [2], "labels"),
        ([[0.5, 0.5]], [[0, 1]], "labels"),  # one-hot
        ([[0.5, 0.5]], [0.0], "labels"),
        ([[0.5, 0.5]], [0, 1], "labels"),
    ],
)
def test_what_is_no_classification_is_refused(probabilities, labels, name):
    with pytest.raises(ValueError, match=f"Expected `{name}`"):
        calibration_error(probabilities, labels)


def classifier():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def test_adversarial_examples_move_every_value_and_raise_the_loss():
    model, rng = classifier(), np.random.default_rng(0)
    x = rng.normal(size=(50, 6)).astype("float32")
    y = rng.integers(0, 3, 50)
    before = arrays(model)
    changed = fast_gradient_sign(model, (x, y), 0.01, batch_size=20)
    assert_equal(arrays(model), before)
    assert changed.dtype == x.dtype
    np.testing.assert_allclose(np.abs(changed - x), 0.01, rtol=1e-3)
    lost, opposite = (
        [
            model.evaluate(one[None], y[i : i + 1], verbose=0)[0]
            for i, one in enumerate(of)
        ]
        for of in (changed, 2 * x - changed)
    )
    assert (np.array(lost) > opposite).all()
    np.testing.assert_array_equal(fast_gradient_sign(model, (x, y), 0), x)


def test_numbers_of_words_have_no_adversarial_examples():
    with pytest.raises(ValueError, match=r"Expected `data` to be floats.*int"):
        fast_gradient_sign(classifier(), (np.zeros((2, 6), int), np.zeros(2)), 0.1)
