"""Small models of every kind that the library serves, and helpers to use them."""

import keras
import numpy as np
from keras import layers

from keras_lottery.layers import mask_model, named_masks
from keras_lottery.layers.state import read
from keras_lottery.pruning import prune


def mlp(**kwargs):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "tanh", **kwargs),
            layers.Dropout(0.2),
            layers.Dense(2, **kwargs),
        ]
    )


def cnn():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def separable():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.SeparableConv2D(3, 2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


def conv1d():
    return keras.Sequential(
        [
            keras.Input((6, 2)),
            layers.Conv1D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def shared_layer():
    x = keras.Input((4,))
    shared = layers.Dense(4, "tanh")
    return keras.Model(x, layers.Dense(2)(shared(shared(x))))


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")])
    x = keras.Input((4,))
    outer = keras.Model(x, layers.Dense(4)(layers.LayerNormalization()(inner(x))))
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(outer(x)))


def nested_used_twice():
    left, right, x = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    encoder = keras.Model(x, layers.Dense(3, "tanh")(x))
    merged = layers.Concatenate()([encoder(left), encoder(right)])
    return keras.Model([left, right], layers.Dense(2)(merged))


def twins():
    """Two parts whose layers have the same names."""

    def part():
        x = keras.Input((4,))
        return keras.Model(x, layers.Dense(4, "tanh", name="hidden")(x))

    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(layers.Add()([part()(x), part()(x)])))


def branches():
    """Two inputs and two outputs, an embedding, and layers of one width."""
    numbers, words = keras.Input((4,)), keras.Input((3,), dtype="int32")
    features = layers.Flatten()(layers.Embedding(5, 2)(words))
    both = layers.Dense(4, "relu")(layers.Concatenate()([numbers, features]))
    return keras.Model([numbers, words], [layers.Dense(2)(both), layers.Dense(2)(both)])


ZOO = {
    build.__name__: build
    for build in [
        mlp,
        cnn,
        separable,
        conv1d,
        shared_layer,
        nested,
        nested_used_twice,
        twins,
        branches,
    ]
}


def scramble(model, seed=0):
    """Draws all weights and statistics, so that none is left at zero or one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(rng.choice([-1, 1], weight.shape) * rng.random(weight.shape))
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def pruned(model, sparsity=0.5):
    """The model masked, weights at random positions pruned."""
    masked = mask_model(model)
    prune(masked, sparsity, criterion="random")
    return masked


def inputs(model, size=4, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 5, (size, *x.shape[1:])).astype(x.dtype)
        if "int" in x.dtype
        else rng.normal(size=(size, *x.shape[1:])).astype(x.dtype)
        for x in model.inputs
    ]
    return arrays if len(arrays) > 1 else arrays[0]


def outputs(model, x=None):
    """The model's outputs, side by side."""
    y = model(inputs(model) if x is None else x, training=False)
    return np.concatenate([np.asarray(part) for part in keras.tree.flatten(y)], -1)


def compiled(model, optimizer="adam", **kwargs):
    model.compile(optimizer, "mse", **kwargs)
    return model


def fit(model, batches=4, batch_size=4, **kwargs):
    """Fits random targets, `batches` an epoch."""
    x = inputs(model, batches * batch_size)
    y = [np.ones((batches * batch_size, *out.shape[1:])) for out in model.outputs]
    y = y if len(y) > 1 else y[0]
    return model.fit(x, y, batch_size, verbose=0, shuffle=False, **kwargs)


def arrays(model):
    """Copies of all weights, masks included, as a user reads them."""
    return [np.array(array) for array in model.get_weights()]


def assert_equal(one, other):
    """Two lists of arrays are equal to the bit."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def pruned_weights(model):
    """All pruned weights, as the layers' variables hold them."""
    pairs = named_masks(model).values()
    return np.concatenate([read(weight)[~read(mask)] for mask, weight in pairs])
