"""Random architectures, and random zeros of every structure in their weights."""

import keras
import numpy as np
from keras import layers

from keras_lottery.keras_bridge.layers.state import read

ACTIVATIONS = ["relu", "tanh", "sigmoid", "gelu", None]
VECTOR_BLOCKS = ["dense", "residual", "gate", "concatenate", "norm", "other", "nested"]
IMAGE_BLOCKS = [
    *["conv", "same", "point", "depthwise", "separable", "transpose", "residual"],
    *["concatenate", "squeeze", "norm", "pool", "resize", "other", "shared", "nested"],
]


class Doubled(layers.Layer):
    """A layer that no rule is known for."""

    def call(self, x):
        return 2 * x


class Builder:
    """Builds a model from random choices."""

    def __init__(self, rng):
        self.rng = rng

    def pick(self, choices):
        return choices[self.rng.integers(len(choices))]

    def activation(self):
        return self.pick(ACTIVATIONS)

    def bias(self):
        return bool(self.rng.integers(4))

    def width(self):
        return int(self.rng.integers(2, 6))

    def dense(self, x, units=None):
        units = units or self.width()
        if not self.rng.integers(4):
            axes, activation = ("y" if self.bias() else None), self.activation()
            how = {"bias_axes": axes, "activation": activation}
            return layers.EinsumDense("...x,xy->...y", units, **how)(x)
        return layers.Dense(units, self.activation(), use_bias=self.bias())(x)

    def conv(self, x, filters=None, size=2, **kwargs):
        layer = layers.Conv2D(
            filters or self.width(),
            size,
            activation=self.activation(),
            use_bias=self.bias(),
            **kwargs,
        )
        return layer(x)

    def block(self, x):
        """One more block on a vector or an image."""
        if len(x.shape) == 2:
            return self.vector_block(self.pick(VECTOR_BLOCKS), x)
        small = min(x.shape[1:3]) < 4
        kind = self.pick(IMAGE_BLOCKS)
        if small and kind in ("conv", "separable", "pool", "nested"):
            kind = "same"
        return self.image_block(kind, x)

    def vector_block(self, kind, x):
        channels = x.shape[-1]
        if kind == "dense":
            return self.dense(x)
        if kind == "residual":
            other = self.dense(self.dense(x), channels)
            if self.rng.integers(3) == 0:
                return x + other
            return self.merge()([x, other])
        if kind == "gate":
            return layers.Multiply()([x, self.dense(x, channels)])
        if kind == "concatenate":
            return layers.Concatenate()([self.dense(x), x, self.dense(x)])
        if kind == "norm":
            return self.norm()(x)
        if kind == "nested":
            inner = keras.Input((channels,))
            model = keras.Model(inner, self.dense(layers.Add()([inner, inner])))
            merged = layers.Concatenate()([model(x), model(self.dense(x, channels))])
            return self.dense(merged)
        if self.rng.integers(2):
            return self.operation(x)
        return self.pick(
            [
                layers.Dropout(0.3),
                layers.ReLU(),
                layers.LeakyReLU(),
                layers.PReLU(),
                layers.Softmax(),
                layers.LayerNormalization(),
                Doubled(),
            ]
        )(x)

    def image_block(self, kind, x):
        height, width, channels = x.shape[1:]
        if kind == "conv":
            return self.conv(x, strides=self.pick([1, 2]))
        if kind == "same":
            return self.conv(x, size=3, padding="same")
        if kind == "point":
            return self.conv(x, size=1, padding=self.pick(["same", "valid"]))
        if kind == "depthwise":
            return layers.DepthwiseConv2D(
                2,
                depth_multiplier=self.pick([1, 2]),
                padding=self.pick(
                    ["same", "valid"] if min(height, width) > 2 else ["same"]
                ),
                activation=self.activation(),
                use_bias=self.bias(),
            )(x)
        if kind == "separable":
            return layers.SeparableConv2D(
                self.width(),
                2,
                depth_multiplier=self.pick([1, 2]),
                padding=self.pick(["same", "valid"]),
                use_bias=self.bias(),
            )(x)
        if kind == "transpose":
            layer = layers.Conv2DTranspose(self.width(), 2, use_bias=self.bias())
            return layer(x)
        if kind == "residual":
            padding = {"padding": self.pick(["same", "same", "valid"])}
            size = 1 if padding["padding"] == "valid" else 3
            other = self.conv(self.conv(x, size=1), channels, size, **padding)
            if self.rng.integers(2):
                other = self.norm()(other)
            if self.rng.integers(3) == 0:
                return keras.ops.relu(x + other)
            return self.merge()([x, other])
        if kind == "concatenate":
            parts = [self.conv(x, size=1), x, self.conv(x, size=1)]
            return layers.Concatenate(axis=self.pick([-1, 3]))(parts)
        if kind == "squeeze":
            pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
            return layers.Multiply()([x, self.conv(pooled, channels, 1)])
        if kind == "norm":
            return self.norm()(x)
        if kind == "pool":
            kinds = [layers.MaxPooling2D, layers.AveragePooling2D]
            padding = self.pick(["same", "valid"])
            return self.pick(kinds)(2, strides=self.pick([1, 2]), padding=padding)(x)
        if kind == "resize":
            if width > 8:
                return layers.Cropping2D(1)(x)
            return self.pick([layers.UpSampling2D(), layers.ZeroPadding2D()])(x)
        if kind == "shared":
            shared = layers.Conv2D(channels, 1, activation=self.activation())
            return shared(shared(x))
        if kind == "nested":
            inner = keras.Sequential(
                [
                    keras.Input((None, None, channels)),
                    layers.Conv2D(3, 2, activation=self.activation()),
                    layers.BatchNormalization(),
                    layers.Conv2D(2, 2),
                ]
            )
            return inner(x)
        if self.rng.integers(2):
            return self.image_operation(height, width, x)
        return self.pick(
            [
                layers.Rescaling(2.0, 1.0),
                layers.Resizing(4, 4),
                layers.Conv2D(2 * channels, 1, groups=channels),
                layers.SpatialDropout2D(0.3),
                layers.LeakyReLU(),
                layers.PReLU(shared_axes=self.pick([None, [1, 2]])),
                layers.Conv2D(channels, 1, groups=channels),
                layers.GroupNormalization(1),
                layers.Reshape((height * width, 1, channels)),
                layers.Permute((2, 1, 3)),
                Doubled(),
            ]
        )(x)

    def operation(self, x):
        """An operator or function without a layer, on channels of any tensor."""
        channels = x.shape[-1]
        half = max(channels // 2, 1)
        kinds = [
            lambda: 1 - x * 2,
            lambda: x / np.arange(1, channels + 1, dtype="float32"),
            lambda: keras.ops.clip(x, -1, 1) + x**2,
            lambda: keras.ops.where(x > 0, x, 0.1),
            lambda: keras.ops.take(x, np.array([0, channels - 1, 0]), axis=-1),
            lambda: x * keras.ops.sigmoid(x[..., :1]),
            lambda: keras.ops.softmax(x),
        ]
        if channels > 1:
            kinds += [
                lambda: x[..., 1:],
                lambda: keras.ops.concatenate(keras.ops.split(x, [half], -1)[::-1], -1),
            ]
        return self.pick(kinds)()

    def image_operation(self, height, width, x):
        """An operation that images alone have."""
        ops = keras.ops
        channels = x.shape[-1]
        kinds = [
            lambda: self.operation(x),
            lambda: ops.max_pool(x, 2, 1, "same"),
            lambda: ops.pad(x, [[0, 0], [1, 0], [0, 0], [0, 0]]),
            lambda: ops.reshape(x, (-1, height * width, 1, channels)),
            lambda: ops.transpose(x, (0, 2, 1, 3)),
            lambda: ops.image.resize(x, (3, 3)),
            lambda: ops.flip(x[:, 1:, ::2], axis=1) if min(height, width) > 2 else -x,
            lambda: ops.concatenate([x, x * 2], axis=1),
            lambda: x * ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True)),
            lambda: ops.expand_dims(ops.sum(x, axis=1), 1),
        ]
        if channels % 2 == 0:
            kinds += [
                lambda: layers.Conv2D(channels, 2, groups=2, padding="same")(x),
                lambda: layers.GroupNormalization(channels // 2)(x),
            ]
        return self.pick(kinds)()

    def norm(self):
        return layers.BatchNormalization(
            scale=bool(self.rng.integers(4)), center=bool(self.rng.integers(4))
        )

    def merge(self):
        kinds = [layers.Add, layers.Add, layers.Subtract, layers.Average]
        return self.pick([*kinds, layers.Maximum, layers.Minimum, layers.Multiply])()

    def head(self, x):
        """From an image to a vector."""
        kind = self.rng.integers(4)
        if kind == 0:
            return layers.GlobalAveragePooling2D()(x)
        if kind == 1:
            return layers.GlobalMaxPooling2D()(x)
        if kind == 2:
            return layers.Reshape((int(np.prod(x.shape[1:])),))(x)
        return layers.Flatten()(x)


def random_model(seed):
    """A model of a few random blocks; two inputs or two outputs now and then."""
    rng = np.random.default_rng(seed)
    build = Builder(rng)
    shape = [(5,), (6, 6, 2)][rng.integers(2)]
    inputs = keras.Input(shape)
    x = inputs
    for _ in range(rng.integers(1, 5)):
        x = build.block(x)
    if rng.integers(4) == 0 and len(shape) == 1:
        x = build.dense(x, 2 * 2 * 3)
        x = layers.Reshape((2, 2, 3))(x)
    if len(x.shape) == 4:
        x = build.head(x)
    for _ in range(rng.integers(0, 3)):
        x = build.block(x)
    outputs = [layers.Dense(2, build.pick([None, "softmax"]))(x)]
    if rng.integers(4) == 0:
        outputs.append(x)
    return keras.Model(inputs, outputs)


def draw_weights(model, rng):
    """Weights of a size that keeps the numbers moderate, statistics in range."""
    for weight in model.weights:
        shape = weight.shape
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.5, 2, shape))
        elif "kernel" in weight.name:
            fan_in = max(np.prod(shape[:-1]), 1)
            weight.assign(rng.normal(size=shape) * np.sqrt(2 / fan_in))
        elif "float" in weight.dtype:
            weight.assign(rng.normal(size=shape))


def zero_at_random(model, rng):
    """Zeros columns, rows, single weights or all of a weight; biases and scales too."""
    for weight in model.weights:
        array = read(weight)
        is_kernel = array.ndim > 1
        if not is_kernel and weight.name not in ("bias", "gamma", "beta"):
            continue
        kind = rng.integers(6)
        if kind == 0:
            array *= rng.random(array.shape) < 0.5
        if kind in (1, 2) and is_kernel:
            array *= rng.random(array.shape[-1]) < 0.5
        if kind in (2, 3) and is_kernel:
            array *= (rng.random(array.shape[-2]) < 0.5)[:, np.newaxis]
        if kind == 4 and rng.integers(4) == 0:
            array *= 0
        if kind in (1, 2) and not is_kernel:
            array *= rng.random(array.shape) < 0.5
        weight.assign(array)
