"""`compact`: smaller models with the same outputs."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_masks, is_masked, mask_model, redraw
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.structured import PerChannel, compact, register_rule
from keras_lottery.structured.rules import table
from tests.models_zoo import (
    ZOO,
    arrays,
    as_array,
    assert_equal,
    cnn,
    fit,
    inputs,
    outputs,
    pruned,
    scramble,
)
from tests.structured.architectures import (
    Doubled,
    draw_weights,
    random_model,
    zero_at_random,
)


# JAX compiles the layers of each new shape.
@pytest.mark.representative
@settings(max_examples=25 if keras.backend.backend() == "tensorflow" else 3)
@given(seed=st.integers(0, 2**32 - 1))
def test_outputs_stay_and_nothing_dead_is_left(seed):
    rng = np.random.default_rng(seed)
    model = random_model(seed)
    draw_weights(model, rng)
    zero_at_random(model, rng)
    x = inputs(model, seed=seed)
    expected = outputs(model, x)
    small = compact(model)
    scale = max(1, abs(expected).max())
    assert abs(outputs(small, x) - expected).max() < 1e-4 * scale
    assert small.count_params() <= model.count_params() + bias_count(small)
    assert compact(small).count_params() == small.count_params()


def bias_count(model):
    """Biases may come in where constants are folded."""
    return sum(int(np.prod(w.shape)) for w in model.weights if w.name == "bias")


def zeroed(layer, columns=(), rows=(), bias=None):
    """Zeros columns (outputs) or rows (inputs) of a layer's kernel."""
    kernel = read(layer.kernel)
    kernel[..., list(columns)] = 0
    kernel[..., list(rows), :] = 0
    layer.kernel.assign(kernel)
    if bias is not None:
        layer.bias.assign(np.full(layer.bias.shape, bias))


def compacted(model, seed=0):
    """The smaller model and the report, outputs compared."""
    x = inputs(model, seed=seed)
    expected = outputs(model, x)
    small, report = compact(model, return_report=True)
    np.testing.assert_allclose(outputs(small, x), expected, atol=1e-5)
    return small, report


def shapes(model):
    return [tuple(w.shape) for w in model.weights if "kernel" in w.name]


def stack(*steps, shape=(4,)):
    model = keras.Sequential([keras.Input(shape), *steps])
    draw_weights(model, np.random.default_rng(0))
    return model


@pytest.mark.once
class TestRemoval:
    def test_a_unit_that_nothing_reads_goes_with_all_that_it_alone_read(self):
        model = stack(*[layers.Dense(n, "tanh") for n in (5, 4, 3, 2)])
        _, second, third, _ = model.layers
        zeroed(third, rows=[1])  # nothing reads unit 1 of the second layer
        kernel = read(second.kernel)
        kernel[2, [0, 2, 3]] = 0  # which alone reads unit 2 of the first
        second.kernel.assign(kernel)
        small, report = compacted(model)
        assert shapes(small) == [(4, 4), (4, 3), (3, 3), (3, 2)]
        assert report.widths["dense"] == (5, 4)
        assert not report.kept

    def test_a_constant_unit_is_folded_and_so_is_what_it_makes_constant(self):
        model = stack(
            layers.Dense(5, "relu"), layers.Dense(4, "sigmoid"), layers.Dense(2)
        )
        first, second, _ = model.layers
        zeroed(first, columns=[0, 3], bias=0.7)
        kernel = read(second.kernel)
        kernel[[1, 2, 4], 2] = 0  # unit 2 reads constants alone
        second.kernel.assign(kernel)
        small, _ = compacted(model)
        assert shapes(small) == [(4, 3), (3, 3), (3, 2)]

    def test_a_layer_without_bias_gets_one(self):
        model = stack(layers.Dense(5, "relu"), layers.Dense(2, use_bias=False))
        zeroed(model.layers[0], columns=[0], bias=0.7)
        small, _ = compacted(model)
        assert small.layers[1].use_bias
        assert shapes(small) == [(4, 4), (4, 2)]

    def test_constants_pass_through_normalisation_pooling_and_flatten(self):
        model = stack(
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.AveragePooling2D(2, padding="same"),
            layers.Conv2D(3, 2),
            layers.MaxPooling2D(padding="same"),
            layers.Flatten(),
            layers.Dense(2),
            shape=(9, 9, 2),
        )
        zeroed(model.layers[0], columns=[1, 2], bias=0.5)
        zeroed(model.layers[4], columns=[0], bias=-0.5)
        small, _ = compacted(model)
        assert shapes(small) == [(3, 3, 2, 2), (2, 2, 2, 2), (2 * 2 * 2, 2)]
        assert small.layers[1].gamma.shape == (2,)

    def test_a_scale_of_zero_makes_a_constant(self):
        model = stack(
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.Conv2D(2, 3),
            layers.GlobalMaxPooling2D(),
            shape=(6, 6, 2),
        )
        model.layers[1].gamma.assign([1, 0, 2, 0])
        small, _ = compacted(model)
        assert shapes(small) == [(3, 3, 2, 2), (3, 3, 2, 2)]

    def test_what_a_scale_of_zero_alone_reads_goes_though_its_channel_stays(self):
        model = stack(
            layers.Dense(3), layers.Dense(4), layers.BatchNormalization(), Doubled()
        )
        kernel = read(model.layers[1].kernel)
        kernel[2, [0, 2, 3]] = 0
        model.layers[1].kernel.assign(kernel)
        model.layers[2].gamma.assign([1, 0, 2, 3])
        small, _ = compacted(model)
        assert shapes(small) == [(4, 2), (2, 4)]

    def test_units_of_flattened_images_leave_only_together(self):
        model = stack(
            layers.Conv2D(3, 1), layers.Flatten(), layers.Dense(2), shape=(2, 2, 2)
        )
        zeroed(model.layers[2], rows=[0, 3, 6, 9, 1, 4, 7])  # of channel 1, not all
        small, _ = compacted(model)
        assert shapes(small) == [(1, 1, 2, 2), (8, 2)]

    def test_depthwise_and_separable_convolutions(self):
        model = stack(
            layers.Conv2D(4, 1),
            layers.DepthwiseConv2D(2, depth_multiplier=2),
            layers.SeparableConv2D(3, 2, depth_multiplier=2),
            layers.GlobalAveragePooling2D(),
            shape=(5, 5, 2),
        )
        conv, depthwise, separable, _ = model.layers
        zeroed(conv, columns=[0], bias=0.3)
        kernel = read(depthwise.kernel)
        kernel[..., 1, :] = 0
        kernel[..., 2, 0] = 0
        depthwise.kernel.assign(kernel)
        kernel = read(separable.pointwise_kernel)
        kernel[:, :, 12:14] = 0  # both channels made of output 0 of input channel 3
        separable.pointwise_kernel.assign(kernel)
        small, _ = compacted(model)
        # Half-dead channels 2 and 3 stay whole.
        assert shapes(small) == [(1, 1, 2, 2), (2, 2, 2, 2), (2, 2, 4, 2), (1, 1, 8, 3)]

    def test_embeddings(self):
        words = keras.Input((3,), dtype="int32")
        x = layers.Flatten()(layers.Embedding(5, 4)(words))
        model = keras.Model(words, layers.Dense(2)(x))
        draw_weights(model, np.random.default_rng(0))
        table = model.layers[1].embeddings
        table.assign(read(table) * [1, 0, 1, 0] + [0, 0, 0, 2])
        small, _ = compacted(model)
        assert small.layers[1].output_dim == 2

    def test_a_slope_that_all_channels_share_stays_whole(self):
        image = (
            layers.Conv2D(4, 3),
            layers.PReLU(shared_axes=[1, 2, 3]),
            layers.Flatten(),
        )
        dense = layers.Dense(6), layers.PReLU(shared_axes=[1]), layers.Dense(2)
        model = mask_model(stack(*image, *dense, shape=(4, 4, 2)))
        draw_weights(model, np.random.default_rng(0))
        kl.prune(model, 0.5, "l1", granularity="filter")
        small, _ = compacted(model)
        assert small.count_params() == 18 * 2 + 2 + 1 + 8 * 3 + 3 + 1 + 3 * 2 + 2

    def test_arrays_that_weights_start_from_shrink_as_they_do(self, tmp_path):
        constant = keras.initializers.Constant
        rng = np.random.default_rng(0)
        words, kernel = rng.normal(size=(5, 4)), rng.normal(size=(3, 3, 1, 3))
        words[:, 1] = 0
        x = inputs = keras.Input((4, 4), dtype="int32")
        x = layers.Embedding(5, 4, constant(words), name="words")(x)
        x = layers.Conv2D(1, 1, use_bias=False, name="mixed")(x)
        x = layers.DepthwiseConv2D(
            3, depth_multiplier=3, depthwise_initializer=constant(kernel)
        )(x)
        x = layers.Flatten()(x)
        # Told as a list, and one value for all positions.
        x = layers.Dense(6, bias_initializer=constant([1, 0, 2, 3, 4, 5]), name="d")(x)
        model = mask_model(keras.Model(inputs, layers.Dense(2)(x)), ["d", "dense"])
        kl.prune(model, 0.5, "l1", granularity="filter")
        left = get_masks(model)["d/kernel"].any(axis=0)
        small, _ = compacted(model)
        small.save(tmp_path / "small.keras")
        state = redraw(keras.models.load_model(tmp_path / "small.keras"), 0)
        np.testing.assert_array_equal(
            state["words/embeddings"], words[:, [0, 2, 3]].astype("float32")
        )
        np.testing.assert_array_equal(
            state["d/bias"], np.array([1, 0, 2, 3, 4, 5])[left]
        )

    def test_a_layer_keeps_one_channel(self):
        model = stack(layers.Dense(5, "tanh"), layers.Dense(2))
        zeroed(model.layers[1], rows=range(5))
        small, report = compacted(model)
        assert shapes(small) == [(4, 1), (1, 2)]
        why = "1 dead channel kept: a layer has one channel at least"
        assert report.kept["dense"] == why


def residual(merge, second=None):
    """Two layers of four filters that are merged, and read by a third."""
    x = keras.Input((5, 5, 2))
    one, other = layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1)(x)
    merged = merge([one, other])
    last = second or layers.Conv2D(2, 2)
    model = keras.Model(x, layers.GlobalMaxPooling2D()(last(merged)))
    draw_weights(model, np.random.default_rng(0))
    return model, *[layer for layer in model.layers if "kernel" in dir(layer)]


@pytest.mark.once
class TestTies:
    @pytest.mark.parametrize(
        "merge",
        [
            layers.Add(),
            layers.Subtract(),
            layers.Maximum(),
            lambda pair: pair[0] + pair[1],
        ],
    )
    def test_a_channel_goes_if_it_is_dead_in_all_branches(self, merge):
        model, one, other, _ = residual(merge)
        zeroed(one, columns=[0, 1], bias=0.3)
        zeroed(other, columns=[1, 2], bias=0.6)
        small, report = compacted(model)
        assert shapes(small) == [(1, 1, 2, 3), (1, 1, 2, 3), (2, 2, 3, 2)]
        names = ["conv2d", "conv2d_1"]
        assert [report.kept[name].count("1 dead channel kept") for name in names] == [
            1,
            1,
        ]
        assert all(
            "other channels are live there" in why for why in report.kept.values()
        )

    def test_a_product_with_zero_is_dead(self):
        model, one, other, _ = residual(layers.Multiply())
        zeroed(one, columns=[0, 1], bias=0.0)
        zeroed(other, columns=[1, 2], bias=0.6)
        small, _ = compacted(model)
        assert shapes(small) == [(1, 1, 2, 2), (1, 1, 2, 2), (2, 2, 2, 2)]

    def test_of_a_product_that_is_zero_one_factor_has_to_stay(self):
        x = keras.Input((3,))
        parts = [layers.Dense(4, "hard_sigmoid")(x) for _ in range(2)]
        model = keras.Model(x, Doubled()(layers.Multiply()(parts)))
        draw_weights(model, np.random.default_rng(0))
        # 0 at this bias, and 0.5 at none.
        zeroed(model.layers[2], columns=[0, 1], bias=-5.0)
        small, _ = compacted(model)
        assert shapes(small) == [(3, 4), (3, 4)]

    def test_a_sum_that_nothing_reads_goes_unless_a_branch_is_read_elsewhere(self):
        model, _, _, last = residual(layers.Add())
        zeroed(last, rows=[3])
        assert shapes(compacted(model)[0])[0] == (1, 1, 2, 3)
        one = layers.GlobalMaxPooling2D()(model.layers[1].output)
        again = keras.Model(model.input, [*model.outputs, one])
        assert shapes(compacted(again)[0])[0] == (1, 1, 2, 4)

    def test_concatenation(self):
        model, one, other, _ = residual(layers.Concatenate())
        zeroed(one, columns=[0, 1], bias=0.3)
        zeroed(other, columns=[1], bias=0.6)
        small, _ = compacted(model)
        assert shapes(small) == [(1, 1, 2, 2), (1, 1, 2, 3), (2, 2, 5, 2)]

    def test_shared_layers_and_models(self):
        x, y = keras.Input((4,)), keras.Input((4,))
        inner = stack(layers.Dense(5, "relu"), layers.Dense(3))
        both = layers.Concatenate()([inner(x), inner(y)])
        model = keras.Model([x, y], layers.Dense(2)(both))
        zeroed(inner.layers[0], columns=[1, 2], bias=0.4)
        head = model.layers[-1]
        zeroed(head, rows=[0, 3, 1])  # output 0 in both places, output 1 in one
        small, _ = compacted(model)
        assert shapes(small) == [(4, 3), (3, 2), (4, 2)]
        assert type(small.get_layer(inner.name)) is keras.Sequential

    @pytest.mark.parametrize(
        "shared",
        [
            layers.BatchNormalization(),
            layers.Reshape((2, 3)),
            keras.Sequential([keras.Input((6,)), layers.ReLU()]),
        ],
    )
    def test_channels_of_a_shared_layer_leave_in_all_places_or_none(self, shared):
        x = keras.Input((4,))
        parts = [shared(layers.Dense(6)(x)) for _ in range(2)]
        both = [layers.Dense(2)(layers.Flatten()(part)) for part in parts]
        model = keras.Model(x, layers.Concatenate()(both))
        draw_weights(model, np.random.default_rng(0))
        one, other = [x for x in model.layers if isinstance(x, layers.Dense)][:2]
        zeroed(one, columns=[0, 3, 1, 4], bias=0.0)
        zeroed(other, columns=[1, 4, 2, 5], bias=0.0)
        small, _ = compacted(model)
        assert shapes(small)[:2] == [(4, 4), (4, 4)]

    @pytest.mark.parametrize(
        "shared", [layers.Softmax(1), layers.Concatenate(1), layers.Reshape((12,))]
    )
    def test_a_layer_that_is_used_in_two_ways_keeps_its_channels(self, shared):
        x = keras.Input((4, 5))
        image = layers.Dense(6, name="made")(x)
        ways = [image, layers.GlobalMaxPooling1D()(image)]
        if isinstance(shared, layers.Concatenate):
            ways = [shared([way, way]) for way in ways]
        elif isinstance(shared, layers.Softmax):
            ways = list(map(shared, ways))
        else:
            ways = [shared(image[:, :2]), shared(layers.Concatenate()([ways[1]] * 2))]
        # Longer, so that the image's way counts as the first one.
        ways[0] = layers.Flatten()(ways[0])
        parts = [layers.Dense(2)(way) for way in ways]
        model = keras.Model(x, layers.Concatenate()(parts))
        draw_weights(model, np.random.default_rng(0))
        zeroed(model.get_layer("made"), columns=[0, 1, 2], bias=0.3)
        _, report = compacted(model)
        assert report.widths["made"] == (6, 6)

    def test_inputs_of_nested_models_shrink(self):
        inner = stack(layers.BatchNormalization(), layers.Dense(2))
        model = stack(layers.Dense(4, "relu"), inner)
        zeroed(model.layers[0], columns=[1, 2], bias=0.4)
        small, _ = compacted(model)
        assert small.layers[1].input_shape == (None, 2)

    def test_different_constants_at_a_shared_layer_stay(self):
        x = keras.Input((4,))
        shared = layers.Dense(3)
        parts = [shared(layers.Dense(2, name=name)(x)) for name in ("one", "other")]
        model = keras.Model(x, layers.Concatenate()(parts))
        draw_weights(model, np.random.default_rng(0))
        zeroed(model.get_layer("one"), columns=[0], bias=0.4)
        zeroed(model.get_layer("other"), columns=[0], bias=0.5)
        small, report = compacted(model)
        assert shapes(small) == shapes(model)
        assert "its calls read different constants" in report.kept["one"]


@pytest.mark.once
class TestWhatStays:
    @pytest.mark.parametrize(
        ("reader", "reason"),
        [
            ([layers.Conv2D(2, 3, padding="same")], "in conv2d_1, padding='same'"),
            (
                [layers.ZeroPadding2D(), layers.Conv2D(2, 1)],
                "in zero_padding2d, a constant does not stay one",
            ),
            ([layers.Conv2DTranspose(2, 2)], "transposed convolution"),
            ([layers.Conv2D(4, 1, groups=2)], "other channels of its group are live"),
            ([layers.GroupNormalization(2)], "the others of its group are live"),
            ([layers.LayerNormalization()], "it normalises by statistics"),
            ([Doubled()], "in doubled, no rule for Doubled"),
            ([layers.Lambda(lambda x: x)], "no rule for Lambda"),
            ([layers.Identity()], "the model returns them"),
        ],
    )
    def test_what_cannot_be_followed_exactly_is_named(self, reader, reason):
        model = stack(layers.Conv2D(4, 1), *reader, shape=(4, 4, 2))
        zeroed(model.layers[0], columns=[1], bias=0.3)
        small, report = compacted(model)
        assert shapes(small) == shapes(model)
        assert reason in report.kept["conv2d"]
        stays = "no rule" in reason or "statistics" in reason
        assert stays == bool(report.not_followed)
        assert reason in str(report)

    @pytest.mark.parametrize(
        "reader", [layers.Conv2D(2, 3, padding="same"), layers.Conv2DTranspose(2, 2)]
    )
    def test_zeros_go_where_constants_stay(self, reader):
        model = stack(layers.Conv2D(4, 1), reader, shape=(4, 4, 2))
        zeroed(model.layers[0], columns=[1], bias=0.0)
        assert shapes(compacted(model)[0])[0] == (1, 1, 2, 3)

    def test_padding_makes_a_constant_image_uneven(self):
        model = stack(
            layers.Conv2D(4, 1),
            layers.Conv2D(3, 3, padding="same"),
            layers.Conv2D(2, 1),
            shape=(4, 4, 2),
        )
        zeroed(model.layers[0], columns=range(4), bias=0.3)
        assert shapes(compacted(model)[0]) == shapes(model)

    def test_units_of_a_softmax_stay(self):
        model = stack(layers.Dense(4, "softmax"), layers.Dense(2))
        zeroed(model.layers[1], rows=[1])
        small, _ = compacted(model)
        assert shapes(small) == shapes(model)

    def test_a_rule_of_ones_own_is_followed(self, monkeypatch):
        monkeypatch.setattr(table, "RULES", dict(table.RULES))

        @register_rule(Doubled)
        def doubled(layer, call):
            return PerChannel(layer, lambda value: 2 * value)

        model = stack(layers.Dense(4), Doubled(), layers.Dense(2))
        zeroed(model.layers[0], columns=[1], bias=0.3)
        small, report = compacted(model)
        assert shapes(small) == [(4, 3), (3, 2)]
        assert not report.not_followed

    def test_subclasses_are_not_taken_for_their_parents(self):
        class Reversed(layers.Dense):
            def call(self, x):
                return super().call(x[..., ::-1])

        model = stack(layers.Dense(4), Reversed(4), layers.Dense(2))
        zeroed(model.layers[1], rows=[1])
        small, report = compacted(model)
        assert shapes(small) == shapes(model)
        assert report.not_followed == (
            "reversed (Reversed, behind dense): no rule for Reversed",
        )

    def test_a_subclassed_model_is_refused(self):
        class Own(keras.Model):
            def call(self, x):
                return x

        class Plain(keras.Model):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.dense = layers.Dense(2)

            def call(self, x):
                return self.dense(x)

        x = keras.Input((4,))
        plain = Plain()
        plain(np.zeros((1, 4)))
        for model in (Own(x, layers.Dense(2)(x)), plain):
            with pytest.raises(ValueError, match=r"keras.Model\(x, model.call\(x\)\)"):
                compact(model)
        with pytest.raises(ValueError, match=r"keras.Model\(x, model.call\(x\)\)"):
            kl.prune(mask_model(plain), 0.5, granularity="filter")
        small = compact(keras.Model(x, plain.call(x)))
        y = inputs(small)
        np.testing.assert_allclose(outputs(small, y), plain(y), atol=1e-6)


@pytest.mark.once
class TestTheNewModel:
    def test_masks_are_baked_in(self):
        masked = pruned(stack(layers.Dense(8, "relu"), layers.Dense(2)), 0.8)
        small = compact(masked)
        np.testing.assert_allclose(outputs(small), outputs(masked), atol=1e-6)
        assert not is_masked(small)
        assert small.count_params() < masked.count_params()

    @pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
    def test_every_model(self, build):
        model = pruned(scramble(build()), 0.7)
        before, expected = arrays(model), outputs(model)
        np.testing.assert_allclose(outputs(compact(model)), expected, atol=1e-4)
        assert_equal(arrays(model), before)

    def test_a_dense_model_stays_as_it_is(self):
        model = draw_and_return(cnn())
        small, report = compact(model, return_report=True)
        assert_equal(arrays(small), arrays(model))
        assert report.parameters_after == report.parameters_before
        assert [layer.name for layer in small.layers] == [x.name for x in model.layers]

    def test_settings_stay(self, tmp_path):
        model = stack(
            layers.Dense(8, "relu", kernel_regularizer="l2", name="one"),
            layers.Dropout(0.5),
            layers.Dense(2, name="two"),
        )
        model.layers[0].trainable = False
        model.compile("sgd", "mse")
        small = compact(model)
        assert not small.layers[0].trainable
        assert isinstance(small.layers[0].kernel_regularizer, keras.regularizers.L2)
        assert small.optimizer is not model.optimizer
        fit(small)
        small.save(tmp_path / "small.keras")
        again = keras.models.load_model(tmp_path / "small.keras")
        np.testing.assert_array_equal(outputs(again), outputs(small))


def draw_and_return(model):
    draw_weights(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_a_quantised_model_is_copied_whole(mode):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(4)])
    model.quantize(mode)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    np.testing.assert_array_equal(as_array(compact(model)(x)), as_array(model(x)))
