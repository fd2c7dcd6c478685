"""Data that do not fit a model are refused before any training."""

import keras
import numpy as np
import pytest
from keras import losses

from keras_lottery.engines import make
from tests.engines.small_training import data, examples, model

X, Y = examples(32, 1)
LABELS = r"labels that are whole numbers from 0 to 2.*Received: "


def assert_refused(part, x, y, message, compiled=None, **others):
    with pytest.raises(ValueError, match=f"(?s)Expected {part} .*{message}"):
        make("auto", compiled or model(), data(**{part: (x, y)}, **others), 5)


@pytest.mark.once
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_each_part_is_looked_at(part):
    net = model()
    assert_refused(part, X, Y + 1, LABELS + "3", net)
    assert_refused(part, X, Y - 1, LABELS + "-1", net)
    assert_refused(part, X, Y + 0.5, LABELS + r"\d.5", net)
    assert_refused(part, np.where(X > 3, np.nan, X), Y, "finite.*nan_to_num", net)
    assert_refused(part, X, np.where(Y > 1, np.inf, Y), "finite", net)
    assert_refused(
        part, X[:, :3], Y, r"fit the model. Received: shapes \(\(\d+, 3, 4, 2\)", net
    )


@pytest.mark.once
def test_what_a_loss_takes():
    def compiled(loss, width=3, metrics=("accuracy",)):
        net = model()
        small = keras.Sequential([*net.layers[:-1], keras.layers.Dense(width)])
        small.build((None, 4, 4, 2))
        small.compile("sgd", loss, metrics=list(metrics))
        return small

    one_hot = keras.utils.to_categorical(Y, 3)
    ignoring = losses.SparseCategoricalCrossentropy(True, ignore_class=-1)
    sparse = {part: (X, np.where(Y > 1, -1, Y)) for part in ("train", "validation")}
    make("fit", compiled(ignoring), data(**sparse, test=None), 5)
    hot = {"validation": (X, one_hot), "test": None}
    for loss in (losses.CategoricalCrossentropy(True), "categorical_crossentropy"):
        make("fit", compiled(loss), data(train=(X, one_hot), **hot), 5)
        assert_refused("train", X, 2 * one_hot, "from 0 to 1", compiled(loss), **hot)
    yes = {"validation": (X, Y > 1), "test": None}
    binary = compiled(losses.BinaryCrossentropy(True), 1)
    assert_refused("train", X, 2 * (Y > 1) - 1, "from 0 to 1.*-1 to 1", binary, **yes)


@pytest.mark.tensorflow
def test_a_data_set_has_to_be_batched():
    import tensorflow as tf

    examples_alone = tf.data.Dataset.from_tensor_slices((X, Y))
    with pytest.raises(ValueError, match=r"(?s)train .*Batch it: `dataset.batch\(32\)"):
        make("auto", model(), data(train=examples_alone), 5)
    make("fit", model(), data(train=examples_alone.batch(8)), 5)


@pytest.mark.once
def test_several_outputs_each_have_their_labels():
    inputs = keras.Input((4, 4, 2))
    flat = keras.layers.Flatten()(inputs)
    heads = {
        name: keras.layers.Dense(n, name=name)(flat) for name, n in (("a", 3), ("b", 1))
    }
    net = keras.Model(inputs, heads)
    net.compile(
        "sgd",
        {"a": losses.SparseCategoricalCrossentropy(True), "b": "mse"},
        metrics={"a": ["accuracy"]},
    )
    parts = {name: (X, {"a": Y, "b": 9.5 * Y}) for name in ("train", "validation")}
    make("fit", net, data(**parts, test=None), 5)
    assert_refused("test", X, {"a": 9 * Y, "b": Y}, LABELS + r"\d", net, **parts)


@pytest.mark.tensorflow
def test_a_model_may_read_text():
    words = np.array(["a", "b"] * 16, dtype=object)
    reads = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    net = keras.Sequential(
        [keras.Input((), dtype="string"), reads, keras.layers.Dense(3)]
    )
    net.compile("sgd", losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    parts = {"train": (words, Y), "validation": (words, Y), "test": None}
    assert make("fit", net, data(**parts), 5).name == "fit"
