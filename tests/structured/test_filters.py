"""Pruned filters fall silent, stay silent, and `compact` removes them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.structured import compact, of_filters
from tests.models_zoo import arrays, assert_equal, inputs, outputs, scramble
from tests.structured.architectures import draw_weights, random_model


def residual_net():
    """Two residual blocks of six channels, bottlenecks of four, and a dense head."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    for i in range(2):
        y = layers.Conv2D(4, 1, activation="relu", name=f"down_{i}")(x)
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise_{i}")(y)
        y = layers.Conv2D(6, 3, padding="same", name=f"up_{i}")(y)
        y = layers.BatchNormalization(name=f"norm_{i}")(y)
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(8, "sigmoid", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, name="output")(x))


def masked(model):
    model = mask_model(model)
    draw_weights(model, np.random.default_rng(0))
    return model


def prune_filters(model, sparsity, criterion="l1", *args, **options):
    options["granularity"] = "filter"
    kl.prune(model, sparsity, criterion, *args, **options)


def widths(model):
    """The channels that each layer with a kernel makes."""
    return {
        layer.name: layer.output.shape[-1] for layer in model.layers if layer.weights
    }


class TestCounts:
    @pytest.mark.parametrize("criterion", ["l1", "activation"])
    def test_each_layer_loses_the_share_and_tied_layers_the_same_filters(
        self, criterion
    ):
        model = masked(residual_net())
        prune_filters(model, 0.5, criterion, data=(inputs(model, 8), None))
        state, masks = get_state(model), get_masks(model)
        alive = [
            masks[f"{name}/kernel"].any((0, 1, 2)) for name in ("stem", "up_0", "up_1")
        ]
        assert alive[0].sum() == 3
        assert_equal(alive[1:], [alive[0]] * 2)
        for name in ("norm", "norm_0", "norm_1"):
            for weight in ("gamma", "beta"):
                np.testing.assert_array_equal(state[f"{name}/{weight}"] != 0, alive[0])
        small = compact(model)
        assert widths(small) == {
            **dict.fromkeys(["stem", "norm", "up_0", "norm_0", "up_1", "norm_1"], 3),
            **dict.fromkeys(["down_0", "depthwise_0", "down_1", "depthwise_1"], 2),
            "hidden": 4,
            "output": 3,
        }
        np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)

    @pytest.mark.once
    def test_global_allocation_counts_all_and_leaves_one_of_each(self):
        model = masked(residual_net())
        prune_filters(model, 18 / 22, allocation="global")
        names = ["stem", "down_0", "down_1", "hidden"]
        assert [widths(compact(model))[name] for name in names] == [1, 1, 1, 1]

    @pytest.mark.once
    def test_layers_can_be_left_out(self):
        model = masked(residual_net())
        allocation = kl.allocation.Uniform(exclude=["stem+up_0+up_1", "hidden"])
        prune_filters(model, 4 / 22, allocation=allocation)
        left = widths(compact(model))
        assert [left[n] for n in ("stem", "hidden", "down_0", "down_1")] == [6, 8, 2, 2]

    @pytest.mark.once
    def test_nothing_is_revived_over_rounds(self):
        model = masked(residual_net())
        before = get_masks(model)
        for sparsity in (0.25, 0.5, 0.75):
            prune_filters(model, sparsity, "random", seed=round(4 * sparsity))
            masks = get_masks(model)
            assert not any((masks[name] & ~before[name]).any() for name in masks)
            before = masks
        assert widths(compact(model))["hidden"] == 2

    @pytest.mark.once
    @settings(max_examples=10)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_silenced_filters_of_any_model_are_removed(self, seed):
        model = mask_model(random_model(seed))
        draw_weights(model, np.random.default_rng(seed))
        _, before = compact(model, return_report=True)
        try:
            prune_filters(model, 0.3, "random", "global", seed=seed % 7)
        except ValueError as error:
            assert "no filters or units that can be" in str(error)
            return
        x = inputs(model)
        expected = outputs(model, x)
        small, report = compact(model, return_report=True)
        scale = max(1, abs(expected).max())
        assert abs(outputs(small, x) - expected).max() < 1e-4 * scale
        assert report.kept.keys() <= before.kept.keys()


class TestScores:
    def model(self):
        model = masked(
            keras.Sequential(
                [
                    keras.Input((3,)),
                    layers.Dense(4, use_bias=False, name="hidden"),
                    layers.BatchNormalization(name="norm"),
                    layers.ReLU(),
                    layers.Dense(2, name="output"),
                ]
            )
        )
        kernel = [[3, 1, 0, 1], [3, 2, 0.5, 0], [3, 0, 0, 2]]
        model.layers[0].weight_variable("kernel").assign(np.array(kernel))
        model.layers[1].gamma.assign([0.1, -3, 2, 1])
        model.layers[1].beta.assign([0, -9, 0, 0])
        for name, value in (("moving_mean", 0), ("moving_variance", 1)):
            getattr(model.layers[1], name).assign(np.full(4, value))
        return model

    @pytest.mark.parametrize(
        ("criterion", "left"),
        [
            ("l1", [0]),
            # The two in the middle of the others go.
            ("fpgm", [0]),
            ("bn_scale", [1]),
            # Unit 1 is never active behind its offset, unit 0 hardly.
            ("activation", [3]),
            (of_filters(lambda filters: np.arange(4) == 2), [2]),
        ],
    )
    def test_the_filter_left_is_the_best(self, criterion, left):
        model = self.model()
        x = np.eye(3, dtype="float32") + 0.1
        prune_filters(model, 0.75, criterion, data=(x, None))
        alive = get_masks(model)["hidden/kernel"].any(axis=0)
        np.testing.assert_array_equal(np.flatnonzero(alive), left)

    @pytest.mark.parametrize("keyed", [False, True])
    def test_inputs_are_taken_by_name(self, keyed):
        x = {name: keras.Input((4,), name=name) for name in ("zeta", "alpha")}
        y = [layers.Dense(4, name=f"of_{name}")(x[name]) for name in x]
        y = layers.Dense(2)(layers.Concatenate()(y))
        model = masked(keras.Model(x if keyed else list(x.values()), y))
        for name in x:
            model.get_layer(f"of_{name}").weight_variable("kernel").assign(np.eye(4))
        rng = np.random.default_rng(0)
        # Bytes, as images are; the largest of each input lie elsewhere.
        zeta = rng.integers([0, 0, 99, 99], [99, 99, 200, 200], (9, 4), "uint8")
        data = {"alpha": zeta[:, ::-1].astype("float64"), "zeta": zeta}
        prune_filters(model, 0.5, "activation", data=(data, None))
        masks = get_masks(model)
        np.testing.assert_array_equal(masks["of_zeta/kernel"].any(0), [0, 0, 1, 1])
        np.testing.assert_array_equal(masks["of_alpha/kernel"].any(0), [1, 1, 0, 0])

    def test_fpgm_prunes_near_the_median_not_the_small(self):
        model = masked(stack(layers.Dense(5), layers.Dense(2)))
        kernel = np.array([[0, 1, 2, 3, 4]] * 4)
        model.layers[0].weight_variable("kernel").assign(kernel)
        prune_filters(model, 0.2, "fpgm")
        alive = get_masks(model)["dense/kernel"].any(axis=0)
        np.testing.assert_array_equal(alive, [1, 1, 0, 1, 1])


def stack(*steps, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *steps])


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_silenced_filters_stay_silent_in_training(optimizer):
    """With momentum from before, whatever the activation and the padding."""
    model = masked(residual_net())
    model.compile(OPTIMIZERS[optimizer](), "mse")
    rng = np.random.default_rng(0)
    x, y = inputs(model, 16), rng.normal(size=(16, 3))
    model.fit(x, y, batch_size=4, verbose=0)
    prune_filters(model, 0.5)
    silent = {
        name: array == 0
        for name, array in get_state(model).items()
        if name.endswith(("kernel", "bias", "gamma", "beta"))
    }
    assert sum(zero.sum() for zero in silent.values()) > 300
    before = arrays(model)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert not np.array_equal(arrays(model)[0], before[0])
    state = get_state(model)
    for name, zero in silent.items():
        assert not state[name][zero].any(), name
    small, report = compact(model, return_report=True)
    assert widths(small)["hidden"] == 4
    assert not report.kept
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-4)


@pytest.mark.once
class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"sparsity": 1.0}, "sparsity=1.0"),
            ({"sparsity": 0.97}, "No filter would be left in"),
            ({"sparsity": 0.5, "criterion": "typo"}, "criterion='typo'"),
            ({"sparsity": 0.5, "allocation": "typo"}, "allocation='typo'"),
            ({"sparsity": 0.5, "criterion": "activation"}, "Pass `data=x`"),
            ({"sparsity": "0.5"}, "sparsity='0.5'"),
            (
                {"sparsity": 0.5, "criterion": of_filters(lambda filters: np.zeros(3))},
                r"each filter of '.*', of shape \(\d,\).*shape \(3,\).*<lambda>",
            ),
            *(
                ({"sparsity": 0.5, "criterion": "activation", "data": data}, "`data`")
                for data in (
                    (np.ones((2, 5, 6, 2)), None),
                    (np.ones((0, 6, 6, 2)), None),
                    ({"other": np.ones((2, 6, 6, 2))}, None),
                )
            ),
            ({"sparsity": 0.5, "criterion": "bn_scale"}, "none behind\n? ?'down_0'"),
        ],
    )
    def test_wrong_arguments_change_nothing(self, arguments, message):
        model = masked(residual_net())
        before = arrays(model)
        with pytest.raises(ValueError, match=message):
            prune_filters(model, **arguments)
        assert_equal(arrays(model), before)

    @pytest.mark.parametrize("allocation", ["Uniform", "Global"])
    def test_layers_left_out_need_no_score(self, allocation):
        """The advice of the error that says what they lack."""
        model = masked(
            keras.Sequential(
                [
                    keras.Input((4,)),
                    layers.Dense(6, name="first"),
                    layers.BatchNormalization(),
                    layers.Dense(6, name="second"),
                    layers.Dense(2),
                ]
            )
        )
        with pytest.raises(ValueError, match=r"none behind\s+'second'"):
            prune_filters(model, 0.25, "bn_scale")
        allocate = getattr(kl.allocation, allocation)(exclude=["second"])
        prune_filters(model, 0.25, "bn_scale", allocation=allocate)
        left = widths(compact(model))
        assert (left["first"], left["second"]) == (3, 6)

    def test_a_layer_that_reads_pruned_filters_has_to_be_masked(self):
        model = mask_model(scramble(residual_net()), "stem")
        before = arrays(model)
        with pytest.raises(ValueError, match="no filters or units"):
            prune_filters(model, 0.5)
        model = mask_model(scramble(residual_net()), ["down_*", "up_*", "stem"])
        before = arrays(model)
        with pytest.raises(ValueError, match=r"The layers \['hidden'\] read filters"):
            prune_filters(model, 0.5)
        assert_equal(arrays(model), before)
        allocation = kl.allocation.Uniform(exclude=["stem*"])
        prune_filters(model, 4 / 14, allocation=allocation)
        assert widths(compact(model))["down_1"] == 2

    def test_an_unmasked_model_is_refused(self):
        with pytest.raises(ValueError, match="Call `mask_model"):
            prune_filters(residual_net(), 0.5)

    def test_a_model_without_hidden_units_is_refused(self):
        with pytest.raises(ValueError, match="no filters or units"):
            prune_filters(mask_model(stack(layers.Dense(3))), 0.5)
