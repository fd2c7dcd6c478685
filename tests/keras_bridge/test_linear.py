"""A layer is its matrices: what it reads, times its weight, is what it returns."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.linear import matrices
from tests.models_zoo import KERAS, as_array

JAX = keras.backend.backend() == "jax"
OLD_ON_TORCH = KERAS < (3, 15) and keras.backend.backend() == "torch"


def convolutions():
    """(a layer, the shape of an input) of every kind, stride, padding and dilation."""
    for side, stride, padding, dilation in itertools.product(
        (1, 2, 3), (1, 2, 3), ("same", "valid"), (1, 2)
    ):
        if stride > 1 and dilation > 1:
            continue
        how = {"strides": stride, "padding": padding, "dilation_rate": dilation}
        yield layers.Conv2D(6, (side, 2), groups=2, **how), (9, 8, 4)
        yield layers.DepthwiseConv2D(side, depth_multiplier=2, **how), (9, 8, 4)
        # TensorFlow spreads out no kernel there.
        if dilation == 1:
            yield layers.Conv2DTranspose(3, (side, 2), **how), (5, 4, 2)
        if side == 3:
            yield layers.Conv1D(6, side, **how), (9, 4)
            yield layers.DepthwiseConv1D(side, **how), (9, 4)
            yield layers.SeparableConv1D(3, side, **how), (9, 4)
            yield layers.SeparableConv2D(3, side, **how), (9, 8, 4)
        if side == 3 and dilation == 1:
            yield layers.Conv1DTranspose(3, side, **how), (5, 2)
    yield layers.Conv1D(3, 3, padding="causal", dilation_rate=2), (9, 4)
    yield layers.Conv3D(3, (2, 3, 2), padding="same"), (4, 5, 3, 2)
    yield layers.Conv3DTranspose(3, (2, 3, 2), strides=2), (2, 3, 2, 2)
    yield layers.Conv2DTranspose(3, 3, strides=2, output_padding=1), (4, 3, 2)


def read(layer, shape, seed=0):
    """The masked layer, its matrices, inputs, and what matrices make of them."""
    model = keras.Sequential([keras.Input(shape), layer])
    model = kl.mask_model(model, prunable=lambda layer: True)
    (layer,) = model.layers
    (name,) = layer.masked_weights
    x = np.random.default_rng(seed).normal(size=(3, *shape)).astype("float32")
    weight = as_array(layer.weight_variable(name))
    of = matrices(layer, name)
    assert np.array_equal(of.weight(of.of(weight)), weight)
    assert of.outputs.shape == weight.shape
    made = np.concatenate(list(of.read(x)), axis=1) @ of.of(weight)
    return of, made.transpose(1, 0, 2), as_array(model(x))


def test_convolutions():
    for layer, shape in convolutions():
        if OLD_ON_TORCH and "Transpose" in type(layer).__name__:
            continue  # Keras itself refuses some of them, and moves others' outputs.
        of, made, expected = read(layer, shape)
        assert np.allclose(made.reshape(expected.shape), expected, atol=1e-4), (
            layer.get_config()
        )
        assert of.biased


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_channels_first(data_format):
    if data_format == "channels_first" and not JAX:
        pytest.skip("TensorFlow has it on GPUs alone")
    shape = (2, 5, 4) if data_format == "channels_first" else (5, 4, 2)
    for kind in (layers.Conv2D, layers.Conv2DTranspose):
        _, made, expected = read(kind(3, 2, data_format=data_format), shape)
        if data_format == "channels_first":
            expected = np.moveaxis(expected, 1, -1)
        assert np.allclose(made.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize(
    "equation, output, shape, order, biased",
    [
        ("abc,cd->abd", (None, 3), (4, 5), (0, 1, 2), True),
        ("...x,xy->...y", (3,), (4, 5), (0, 1, 2), True),
        ("abc,cde->abde", (None, 2, 3), (4, 5), (0, 1, 2, 3), True),
        ("abc,ced->abde", (None, 3, 2), (4, 5), (0, 1, 3, 2), False),
        ("abcd,cde->abe", (None, 6), (4, 2, 5), (0, 1, 2), True),
        ("abc,bcd->abd", (4, 3), (4, 5), (0, 1, 2), False),
    ],
)
def test_einsum(equation, output, shape, order, biased):
    """`order` has the outputs' axes as the kernel has them."""
    made_axes = "".join(a for a in equation.split("->")[1] if a not in "abcx.")
    axes = made_axes or equation[-1]
    layer = layers.EinsumDense(equation, output, bias_axes=axes)
    of, made, expected = read(layer, shape)
    expected = expected.transpose(order)
    assert np.allclose(made.reshape(expected.shape), expected, atol=1e-5)
    assert of.biased == biased


def test_layers_whose_inputs_are_not_known():
    model = keras.Sequential([keras.Input((3,)), layers.Embedding(5, 4)])
    (layer,) = kl.mask_model(model, prunable=lambda layer: True).layers
    assert matrices(layer, "embeddings") is None
