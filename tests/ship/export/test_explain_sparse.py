"""Which models run sparsely on ARM: the expectations were measured under QEMU.

`python benchmarks/phone.py --parts rules` measures them again: how long a sparse file
takes beside a dense one, and whether it answers alike.
"""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_lottery.keras_bridge.layers import get_masks, mask_model, strip_masks
from keras_lottery.keras_bridge.layers.names import walk
from keras_lottery.pruning import prune
from keras_lottery.ship.export import adapt_for_xnnpack, explain_sparse, to_litert
from keras_lottery.ship.export.sparse_on_arm import wrong_on_arm

pytestmark = pytest.mark.once


def net(
    size=16,
    channels=3,
    stem="pad",
    down="pad",
    kernel=3,
    act="relu",
    mid=None,
    end="gap",
):
    """A small net of the kind that XNNPACK runs sparsely, or nearly so."""
    inputs = x = keras.Input((size, size, channels))
    if stem == "pad":
        x = L.ZeroPadding2D(1)(x)
    x = L.Conv2D(4, 3, 2, "valid" if stem == "pad" else "same", name="stem")(x)
    x = L.Activation(act)(L.BatchNormalization()(x))
    x = L.Conv2D(4, 1, name="pointwise_1", activation=act)(x)
    if down == "pad":
        x = L.ZeroPadding2D(kernel // 2)(x)
    padding = "valid" if down == "pad" else "same"
    x = L.DepthwiseConv2D(kernel, 2, padding, name="depthwise")(x)
    if mid:
        x = mid(x)
    x = L.Conv2D(8, 1, name="pointwise_2")(x)
    x = L.Activation(act)(x)
    outputs = head(x, end)
    return keras.Model(inputs, outputs)


POINTWISE = "pointwise_1", "pointwise_2"


def head(x, end):
    if end == "conv":
        return L.Conv2D(3, 1, name="head")(x)
    if end == "flatten":
        return L.Dense(3, name="head")(L.Flatten()(x))
    if end == "keepdims":
        x = L.GlobalAveragePooling2D(keepdims=True)(x)
        return L.Reshape((3,))(L.Conv2D(3, 1, name="head")(x))
    pooled = L.Dense(3, name="head")(L.Dropout(0.1)(L.GlobalAveragePooling2D()(x)))
    return [pooled, L.Conv2D(2, 1, name="mask")(x)] if end == "two" else pooled


def squeezed(x):
    y = L.GlobalAveragePooling2D(keepdims=True)(x)
    y = L.Conv2D(2, 1, activation="relu", name="squeeze")(y)
    return L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid", name="excite")(y)])


def squeezed_by_reshape(x):
    y = L.Reshape((1, 1, 4))(L.GlobalAveragePooling2D()(x))
    return L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid", name="excite")(y)])


def is_pointwise(layer):
    kinds = (L.Conv2D, L.SeparableConv2D)
    return isinstance(layer, kinds) and layer.name != "stem"


def pruned(model, sparsity=0.75, allocation="uniform"):
    """Zeros in every 1x1 kernel."""
    masked = mask_model(model, is_pointwise)
    prune(masked, sparsity, allocation=allocation)
    return masked


FITS = {
    "as it should be": {},
    "5x5": {"kernel": 5},
    "silu": {"act": "silu"},
    "relu6": {"act": "relu6"},
    "residual": {"mid": lambda x: L.Add()([x, L.ReLU()(x)])},
    "x + y": {"mid": lambda x: x + L.ReLU()(x)},
    "squeeze and excite": {"mid": squeezed},
    "dropout": {"mid": L.SpatialDropout2D(0.1)},
    "separable": {"mid": L.SeparableConv2D(4, 3, padding="same", name="separable")},
    "nested": {"mid": keras.Sequential([keras.Input((4, 4, 4)), L.ReLU()])},
}
DENSE = {
    "one channel": {"channels": 1},
    "stem without padding": {"stem": "same"},
    "no pooling": {"end": "flatten"},
    "no pooling, convolved": {"end": "conv"},
}
WRONG = {
    "same": {"down": "same"},
    "same, odd": {"down": "same", "size": 18},
    "two outputs": {"end": "two"},
    "head of convolutions": {"end": "keepdims"},
    "max pooling": {"mid": L.MaxPooling2D()},
    "concatenated": {"mid": lambda x: L.Concatenate()([x, x])},
    "normalised by itself": {"mid": lambda x: L.BatchNormalization()(L.ReLU()(x))},
    "subtracted": {"mid": lambda x: L.Subtract()([x, x])},
    "x + 3": {"mid": lambda x: x + 3.0},
    "depthwise 1x1": {"mid": L.DepthwiseConv2D(1)},
}


@pytest.mark.parametrize("case", FITS)
def test_what_runs_sparsely(case):
    report = explain_sparse(pruned(net(**FITS[case])))
    assert {*POINTWISE} <= {*report.sparse}, report
    assert "head" not in report.sparse and not report.wrong


@pytest.mark.parametrize("case", DENSE)
def test_what_runs_as_dense_does(case):
    report = explain_sparse(pruned(net(**DENSE[case])))
    assert not report.sparse and not report.wrong


@pytest.mark.parametrize("case", WRONG)
def test_what_would_answer_wrongly(case):
    model = net(**WRONG[case])
    assert not wrong_on_arm(model)  # Without zeros, it is dense.
    report = explain_sparse(pruned(model))
    assert not report.sparse
    assert "hands on to" in report.wrong[0]
    assert "since a sparse one would be wrong on ARM" in " ".join(str(report).split())


def test_two_thirds_of_zeros_are_too_few():
    report = explain_sparse(pruned(net(), 32 / 48, "global"))
    assert not report.sparse
    assert "more than 66.7% that are needed" in " ".join(str(report).split())
    assert explain_sparse(pruned(net(), 33 / 48, "global")).sparse == list(POINTWISE)


def test_zeros_count_over_the_whole_part():
    model = mask_model(net(), "pointwise_2")
    prune(model, 0.9)
    # 29 of 32, and none of 16.
    assert not explain_sparse(model).sparse


def test_the_policy_masks_what_can_run_sparsely():
    model = mask_model(net(mid=squeezed), prunable="xnnpack")
    names = {"pointwise_1", "pointwise_2", "squeeze", "excite"}
    assert set(get_masks(model)) == {f"{name}/kernel" for name in names}
    inner = net()
    x = keras.Input((16, 16, 3))
    nested = keras.Model(x, L.Softmax()(inner(x)))
    assert len(get_masks(mask_model(nested, "xnnpack"))) == 2


def test_the_policy_says_when_nothing_can():
    with pytest.raises(ValueError, match=r"xnnpack.*explain_sparse.*adapt_for_xnnpack"):
        mask_model(net(stem="same"), prunable="xnnpack")


def test_subclassed_models_do_not_tell():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 2), "float32"))
    with pytest.raises(ValueError, match=r"a Sequential or Functional .*kl\.inline"):
        explain_sparse(model)
    assert wrong_on_arm(model) == []


@keras.saving.register_keras_serializable("test_explain_sparse")
class Hidden(L.Layer):
    """The layers of a net, in a block that has no graph of its own."""

    def __init__(self, config, weight=False, **kwargs):
        super().__init__(**{"name": "hidden", **kwargs})
        self.net, self.weight = keras.Model.from_config(config), weight
        if weight:
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def build(self, shape):
        pass

    def call(self, x):
        for layer in self.net.layers[1:]:
            x = layer(x)
        return x

    def get_config(self):
        config = {"config": self.net.get_config(), "weight": self.weight}
        return {**super().get_config(), **config}


def hidden(sparsity, weight=False, **how):
    """A net whose layers are in a block."""
    inputs = keras.Input((16, 16, how.get("channels", 3)))
    inner = strip_masks(pruned(net(**how), sparsity))
    block = Hidden(inner.get_config(), weight)
    block.net.set_weights(inner.get_weights())
    return keras.Model(inputs, block(inputs))


def test_blocks_are_opened_to_look_for_what_would_be_wrong():
    assert "hands on to" in wrong_on_arm(hidden(0.75, down="same"))[0]
    assert wrong_on_arm(hidden(0.75)) == []
    assert wrong_on_arm(hidden(0.5, down="same")) == []


@pytest.mark.parametrize("each", [False, True], ids=["whole", "each layer"])
def test_a_wrapper_of_keras_is_not_opened(each):
    plain = strip_masks(pruned(net(mid=L.MaxPooling2D())))
    x = inputs = keras.Input((2, 16, 16, 3))
    for layer in plain.layers[1:] if each else [plain]:
        x = L.TimeDistributed(layer)(x)
    assert "is not known" in wrong_on_arm(keras.Model(inputs, x))[0]


def test_a_closed_block_may_be_wrong_if_it_may_run_sparsely():
    # A weight of its own keeps a block closed.
    reason = "may be wrong on ARM: the graph inside `hidden` is not known"
    assert wrong_on_arm(hidden(0.75, weight=True)) == [reason]
    assert wrong_on_arm(hidden(0.5, weight=True)) == []
    assert wrong_on_arm(hidden(0.75, weight=True, channels=1)) == []


def outputs(model, size=16):
    x = np.random.default_rng(0).random((2, size, size, 3), dtype="float32")
    return keras.ops.convert_to_numpy(model(x))


@pytest.mark.parametrize(
    "how",
    [
        {"size": 17, "stem": "same", "down": "same"},
        {"end": "keepdims"},
        {"mid": squeezed_by_reshape},
    ],
    ids=["odd", "head", "squeeze"],
)
def test_what_is_only_written_otherwise_computes_the_same(how):
    size = how.get("size", 16)
    model = net(**how)
    adapted = adapt_for_xnnpack(model)  # A warning would be an error.
    wanted = pytest.approx(outputs(model, size), abs=1e-6)
    assert outputs(adapted, size) == wanted
    assert explain_sparse(pruned(adapted)).sparse[:1] == ["pointwise_1"]


def test_other_padding_changes_outputs_and_says_so():
    keras.utils.set_random_seed(0)  # Some draws give zeros alone, by any padding.
    model = pruned(net(stem="same", down="same"))
    model.compile("adam", "mse", metrics=["mae"])
    before = outputs(model)
    with pytest.warns(UserWarning, match=r"on both sides: stem, depthwise\. Fine-tune"):
        adapted = adapt_for_xnnpack(model)
    assert np.abs(outputs(adapted) - before).max() > 1e-4
    assert outputs(model) == pytest.approx(before)
    assert adapted.output_shape == model.output_shape
    assert adapted.compiled and adapted.loss == "mse"
    assert get_masks(adapted) == get_masks(model)
    assert explain_sparse(adapted).sparse == list(POINTWISE)


def test_padding_as_that_of_keras_applications_is_changed_in_place():
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None)
    model.get_layer("conv1").trainable = False
    with pytest.warns(UserWarning, match=r"conv1, conv_dw_2, conv_dw_4"):
        adapted = adapt_for_xnnpack(model)
    pads = [layer for _, layer in walk(adapted) if isinstance(layer, L.ZeroPadding2D)]
    assert {layer.padding for layer in pads} == {((1, 1), (1, 1))}
    assert not adapted.get_layer("conv1").trainable
    masks = get_masks(mask_model(adapted, "xnnpack"))
    assert len(masks) == 13 and "conv_preds/kernel" not in masks


def test_what_padding_cannot_mend_is_named():
    with pytest.raises(ValueError, match=r"`max_pooling2d.*no channels-first MaxPool"):
        adapt_for_xnnpack(net(mid=L.MaxPooling2D()))
    with pytest.raises(ValueError, match="there is no 1x1 convolution"):
        adapt_for_xnnpack(keras.Sequential([keras.Input((4,)), L.Dense(2)]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("inside", [False, True], ids=["graph", "block"])
def test_a_file_that_would_be_wrong_on_arm_is_dense(tmp_path, capfd, inside):
    model = hidden(0.75, down="same") if inside else pruned(net(down="same"))
    report = to_litert(model, tmp_path / "model.tflite")
    assert "since it would be wrong on ARM" in report.notes[0]
    assert "pointwise_1` (Conv2D) hands on to `" in report.notes[0]
    assert report.bytes == pytest.approx(report.dense_bytes, rel=0.01)
