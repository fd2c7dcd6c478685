"""Attention with rotary positions."""

import keras
import numpy as np
from keras import layers

from keras_lottery.structured.rotary import RotaryAttention
from tests.models_zoo import as_array, scramble

X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
CAUSAL = np.tril(np.ones((2, 5, 5), bool))


def attention(*frequencies):
    inputs, mask = keras.Input((None, 8)), keras.Input((None, None), dtype="bool")
    layer = RotaryAttention(4, 6, 3, frequencies, name="attention")
    return scramble(keras.Model([inputs, mask], layer(inputs, attention_mask=mask)))


def test_without_rotation_it_is_keras_grouped_attention():
    model = attention(0.0, 0.0)
    grouped = layers.GroupQueryAttention(4, 6, 3, use_bias=False)
    grouped.build(X.shape, X.shape)
    grouped.set_weights(model.get_weights())
    expected = grouped(X, X, attention_mask=CAUSAL)
    np.testing.assert_allclose(model([X, CAUSAL]), expected, atol=1e-5)


def test_only_distances_between_positions_count():
    model = attention(1.0, 0.1)
    found = as_array(model([X, CAUSAL]))
    assert abs(found - as_array(attention(0.0, 0.0)([X, CAUSAL]))).max() > 1e-3
    # Two positions that nothing sees in front move the others by two.
    moved = np.concatenate([X[:, :2], X], axis=1)
    sees = np.zeros((2, 7, 7), bool)
    sees[:, 2:, 2:] = CAUSAL
    np.testing.assert_allclose(model([moved, sees])[:, 2:], found, atol=1e-5)


def test_it_is_rebuilt_from_its_config():
    model = attention(1.0, 0.1)
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again([X, CAUSAL]), model([X, CAUSAL]), atol=1e-6)
