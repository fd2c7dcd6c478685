"""Channels are followed through operators, functions and layers between kernels."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_lottery as kl
from keras_lottery.structured import compact
from tests.models_zoo import inputs, outputs
from tests.structured.architectures import draw_weights

pytestmark = pytest.mark.once

SCALE = np.linspace(0.5, 2, 8, dtype="float32")

FOLLOWED = {
    "x * 2 + 1": lambda x: x * 2 + 1,
    "1 - x / 2": lambda x: 1 - x / 2,
    "-x ** 2": lambda x: -(x**2),
    "x * scalar": lambda x: x * ops.convert_to_tensor(2.0),
    "x * array": lambda x: x * SCALE,
    "array - x": lambda x: ops.subtract(SCALE, x),
    "x * gate": lambda x: x * ops.sigmoid(ops.mean(x, (1, 2), keepdims=True)),
    "x * map": lambda x: x * layers.Conv2D(1, 1, activation="sigmoid")(x),
    "x / tensor": lambda x: x / (1 + ops.absolute(x)),
    "clip": lambda x: ops.clip(x, -1, 1),
    "where": lambda x: ops.where(x > 0, x, 0.1 * x),
    "max_pool": lambda x: ops.max_pool(x, 2),
    "average_pool": lambda x: ops.average_pool(x, 2, 1, "same"),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "reshape": lambda x: ops.reshape(x, (-1, 1, 36, 8)),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "moveaxis": lambda x: ops.swapaxes(ops.moveaxis(x, 1, 2), 1, 2),
    "resize": lambda x: ops.image.resize(x, (4, 5)),
    "concatenate": lambda x: ops.concatenate([x, x + 1], axis=-1),
    "concatenate space": lambda x: ops.concatenate([x, x], axis=1),
    "stack": lambda x: ops.max(ops.stack([x, -x], axis=1), axis=1),
    "slice of space": lambda x: x[:, 1:4, ::2],
    "slice of channels": lambda x: ops.concatenate([x[..., :3], x[..., 3:]], -1),
    "split": lambda x: ops.concatenate(ops.split(x, 2, -1)[::-1], -1),
    "take": lambda x: ops.take(x, np.arange(8)[::-1], axis=-1),
    "take of space": lambda x: ops.take(x, np.arange(8) % 6, axis=1),
    "take_along_axis of space": lambda x: ops.take_along_axis(
        x, np.array([4, 0, 1]).reshape(1, 3, 1, 1), axis=1
    ),
    "mean": lambda x: ops.expand_dims(ops.mean(x, axis=1), 1),
    "sum": lambda x: ops.sum(x, axis=(1, 2), keepdims=True),
    "squeeze": lambda x: ops.expand_dims(ops.squeeze(x[:, :1], 1), 1),
    "roll and flip": lambda x: ops.flip(ops.roll(x, 1, axis=1), axis=2),
    "softmax of space": lambda x: ops.softmax(x, axis=1),
    "Softmax of space": layers.Softmax(axis=(1, 2)),
    "log_softmax of space": lambda x: ops.log_softmax(x, axis=2),
    "hard swish": lambda x: x * layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0),
    "Rescaling": layers.Rescaling(2.0, 1.0),
    "Rescaling by channel": layers.Rescaling(SCALE.tolist(), SCALE.tolist()),
    "Normalization": layers.Normalization(mean=SCALE, variance=SCALE),
    "Resizing": layers.Resizing(4, 4),
    "GroupNormalization": layers.GroupNormalization(4),
    "instance normalisation": layers.GroupNormalization(-1),
    "grouped": layers.Conv2D(12, 3, groups=4, padding="same", activation="relu"),
    "grouped by channel": layers.Conv2D(16, 3, groups=8),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_half_of_the_filters_go_and_the_outputs_stay(name):
    """Pruned by masks, and again with dead filters that are constant and not zero."""
    x = start = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 1, name="before")(x)
    x = layers.Conv2D(3, 1, name="behind")(FOLLOWED[name](x))
    model = keras.Model(start, layers.GlobalMaxPooling2D()(x))
    draw_weights(model, np.random.default_rng(0))
    masked = kl.mask_model(model, lambda layer: True)
    kl.prune(masked, 0.5, "l1", kl.allocation.Uniform(), "filter")
    small = compact(masked)
    x = inputs(model)
    np.testing.assert_allclose(outputs(small, x), outputs(masked, x), atol=2e-4)
    assert small.get_layer("before").filters <= 4
    before = model.get_layer("before")
    kernel = keras.ops.convert_to_numpy(before.kernel)
    before.kernel.assign(kernel * np.repeat([0, 1], 4))
    small = compact(model)
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=2e-4)
    assert small.get_layer("before").filters <= 8


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (ops.softmax, "it goes over the channels"),
        (layers.Softmax(), "it goes over the channels"),
        (
            lambda x: layers.Reshape((6, 6, 36))(layers.Dot(-1)([x, x])),
            "it sums products of channels",
        ),
        (lambda x: ops.mean(x, -1, keepdims=True), "it goes over the channels"),
        (lambda x: ops.transpose(x, (0, 3, 1, 2)), "it moves the channels"),
        (lambda x: x[..., ::2], "in steps of 2"),
        (lambda x: ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, 1]]), "it pads the channel"),
        (layers.Lambda(lambda x: x), "no rule for Lambda"),
        (layers.LayerNormalization(), "it normalises by statistics of all channels"),
        (
            layers.TimeDistributed(layers.Conv1D(3, 1)),
            "no rule for TimeDistributed",
        ),
    ],
)
def test_what_blocks_is_named_with_its_place(operation, reason):
    x = keras.Input((6, 6, 2))
    y = operation(layers.Conv2D(4, 1, name="only")(x))
    model = kl.mask_model(keras.Model(x, layers.GlobalMaxPooling2D()(y)), "only")
    with pytest.raises(ValueError, match=f"behind only.*{reason}"):
        kl.prune(model, 0.5, granularity="filter")
    _, report = compact(model, return_report=True)
    assert any("behind only" in line and reason in line for line in report.not_followed)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x[:, 40:],
        lambda x: ops.max_pool(x, 40),
        lambda x: ops.pad(x, [[0, 0], [0, 0], [1, 1], [0, 0]]),
        layers.Resizing(8, 8, pad_to_aspect_ratio=True),
        lambda x: ops.sum(x, axis=0, keepdims=True),
        lambda x: ops.cumsum(x, axis=-4),
    ],
    ids=["slice", "pool", "pad", "aspect", "sum of a batch", "cumsum of a batch"],
)
def test_constants_are_only_folded_where_they_are_some_at_every_length(operation):
    start = keras.Input((None, None, 2))
    x = layers.Conv2D(4, 1, name="before")(start)
    x = layers.Conv2D(3, 1)(operation(x))
    model = keras.Model(start, layers.GlobalAveragePooling2D()(x))
    draw_weights(model, np.random.default_rng(0))
    before = model.get_layer("before")
    kernel = keras.ops.convert_to_numpy(before.kernel)
    before.kernel.assign(kernel * np.repeat([0, 1], 2))
    small = compact(model)
    for shape in ((44, 60), (60, 44)):
        x = np.random.default_rng(1).normal(size=(2, *shape, 2)).astype("float32")
        np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=2e-4)


def test_filters_go_through_the_gates_and_swishes_of_mobilenet_v3():
    """0.63 of the parameters were left where other networks have a half."""
    model = keras.applications.MobileNetV3Small(
        (32, 32, 3), alpha=0.5, weights=None, classes=4, include_preprocessing=False
    )
    model = kl.mask_model(model)
    kl.prune(model, 0.3, "l1", granularity="filter")
    small, report = compact(model, return_report=True)
    assert report.parameters_after < 0.55 * report.parameters_before
    assert not report.not_followed
    x = inputs(model, 2)
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-5)


def test_a_functional_subclass_is_followed_alone_and_inside_of_another_model():
    """As the backbones of keras-hub are made."""

    @keras.saving.register_keras_serializable()
    class Backbone(keras.Model):
        def __init__(self, **kwargs):
            x = keras.Input((5,))
            self.hidden = layers.Dense(8, "relu", name="hidden")
            y = layers.Dense(4, name="features")(self.hidden(x))
            super().__init__(x, y, **kwargs)

        def get_config(self):
            return {"name": self.name}

    backbone = Backbone(name="backbone")
    x = keras.Input((5,))
    whole = keras.Model(x, layers.Dense(2, name="head")(backbone(x)))
    for model in (backbone, whole):
        masked = kl.mask_model(model)
        kl.prune(masked, 0.5, "l1", granularity="filter")
        small = compact(masked)
        x = inputs(model)
        np.testing.assert_allclose(outputs(small, x), outputs(masked, x), atol=1e-6)
        inner = small if model is backbone else small.get_layer("backbone")
        assert inner.get_layer("hidden").units == 4


@keras.saving.register_keras_serializable("operations")
class Scale(keras.layers.Layer):
    """Has no `get_config`: Keras keeps its arguments, if they are simple."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight(shape=shape[-1:], initializer=start)

    def call(self, x):
        return x * self.scale


@keras.saving.register_keras_serializable("operations")
class OwnBackbone(keras.Model):
    """Gives its types to the layers that it makes, as keras-hub's Gemma does."""

    def __init__(self, dtype=None, **kwargs):
        x = keras.Input((4,))
        hidden = keras.layers.Dense(6, "relu", name="hidden", dtype=dtype)(x)
        hidden = keras.layers.Dense(5, name="wide", dtype=dtype)(hidden)
        super().__init__(x, Scale(2.0, name="scale", dtype=dtype)(hidden), **kwargs)

    def get_config(self):
        policy = keras.dtype_policies.get("float32")
        return {"name": self.name, "dtype": keras.dtype_policies.serialize(policy)}

    @classmethod
    def from_config(cls, config):
        policy = config["dtype"]
        if isinstance(policy, dict):
            policy = keras.dtype_policies.deserialize(policy)
        return cls(policy, name=config["name"])


@pytest.mark.parametrize("masked", [False, True])
def test_layers_that_a_subclass_gives_its_types_are_copied(masked, tmp_path):
    """Given a policy itself, Keras does not keep the arguments of such a layer."""
    model = OwnBackbone(dtype=keras.dtype_policies.get("float32"), name="own")
    scale = model.get_layer("scale")
    with pytest.raises(NotImplementedError):
        scale.get_config()
    if masked:
        model = kl.mask_model(model)
        kl.prune(model, 0.5, "l1", granularity="filter")
    else:
        model.get_layer("wide").kernel.assign(
            np.eye(6, 5) * (np.arange(6) < 3)[:, None]
        )
    small, report = kl.compact(model, return_report=True)
    assert report.widths["hidden"] == (6, 3)
    x = np.random.default_rng(0).random((8, 4), dtype="float32")
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(small(x)), expected, 1e-5)
    kl.export.to_keras(small, tmp_path / "small.keras")
    assert model.get_layer("scale") is not small.get_layer("scale")


def u_net(x):
    down = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    low = layers.Conv2D(8, 3, padding="same", activation="relu")(
        layers.MaxPooling2D()(down)
    )
    up = layers.Conv2DTranspose(6, 2, 2, activation="relu")(low)
    both = layers.Concatenate()([up, down])
    return layers.Conv2D(2, 1)(layers.Conv2D(6, 3, padding="same")(both))


def detector(x):
    """A pyramid of two levels, read by two heads that share a layer."""
    low = layers.Conv2D(6, 3, 2, padding="same", activation="relu")(x)
    high = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(low)
    levels = [layers.Conv2D(6, 1)(high)]
    levels.append(
        layers.Add()([layers.UpSampling2D()(levels[0]), layers.Conv2D(6, 1)(low)])
    )
    tower = layers.Conv2D(8, 3, padding="same", activation="relu")
    heads = layers.Conv2D(3, 1), layers.Conv2D(4, 1)
    towers = [layers.Flatten()(head(tower(y))) for head in heads for y in levels]
    return [layers.Concatenate()(towers[:2]), layers.Concatenate()(towers[2:])]


@pytest.mark.parametrize("build", [u_net, detector])
def test_nothing_stops_removal_in_u_nets_and_detectors(build):
    x = keras.Input((8, 8, 2))
    model = kl.mask_model(keras.Model(x, build(x)))
    draw_weights(model, np.random.default_rng(0))
    kl.prune(model, 0.5, "l1", granularity="filter")
    small, report = compact(model, return_report=True)
    assert not report.not_followed
    assert report.parameters_after < 0.4 * report.parameters_before
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 2)).astype("float32")
    made, expected = (keras.tree.flatten(one(images)) for one in (small, model))
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_mean_over_positions_that_a_mask_names():
    x, counted = keras.Input((6, 2)), keras.Input((6,), dtype="bool")
    y = layers.Dense(8, "relu", name="before")(x)
    y = layers.GlobalAveragePooling1D()(y, mask=counted)
    model = keras.Model([x, counted], layers.Dense(3)(y))
    draw_weights(model, np.random.default_rng(0))
    model = kl.mask_model(model)
    kl.prune(model, 0.5, "l1", granularity="filter")
    small = compact(model)
    rng = np.random.default_rng(1)
    given = [rng.normal(size=(4, 6, 2)).astype("float32"), np.tri(4, 6, dtype=bool)]
    np.testing.assert_allclose(outputs(small, given), outputs(model, given), atol=1e-5)
    assert small.get_layer("before").units == 4
