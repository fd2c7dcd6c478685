"""Criteria take the training data in whatever form `fit` takes them."""

import keras
import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery.keras_bridge.datasets import read_whole
from tests.engines.small_training import model
from tests.engines.test_as_in_fit import VALIDATION, Batches, X, Y

FLAT = X.reshape(len(X), -1)


def table():
    rows = np.random.default_rng(0).permutation(len(X))
    return pd.DataFrame(FLAT, index=rows), pd.Series(Y, index=rows)


def in_tensorflow(*arrays):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays).batch(10)


class Flat(Batches):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x.reshape(len(x), -1), y


def pruned(data, criterion="snip"):
    net = keras.Sequential(
        [keras.Input((32,)), *(keras.layers.Dense(n) for n in (9, 3))]
    )
    for number, weight in enumerate(net.trainable_weights):
        weight.assign(np.random.default_rng(number).normal(size=weight.shape))
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net = kl.mask_model(net)
    kl.prune(net, 0.6, criterion, data=data)
    return kl.get_masks(net)


@pytest.mark.parametrize(
    "data",
    [
        table,
        Flat,
        pytest.param(lambda: in_tensorflow(FLAT, Y), marks=pytest.mark.tensorflow),
        pytest.param(
            lambda: in_tensorflow(FLAT, Y, np.ones(len(Y))),
            marks=pytest.mark.tensorflow,
        ),
    ],
    ids=["tables", "py", "tf", "weights"],
)
def test_in_whatever_form_the_masks_are_the_same(data):
    assert pruned(data()) == pruned((FLAT, Y))


@pytest.mark.once
def test_what_cannot_be_read_whole_is_refused():
    for data, message in (
        (Flat(endless=True), r"known length.*take\(n\)"),
        (in_tensorflow(FLAT), "batches of type|batches of"),
    ):
        with pytest.raises(ValueError, match=message):
            pruned(data)


def test_a_search_reads_a_data_set_once(monkeypatch):
    read = []
    monkeypatch.setattr(
        "keras_lottery.engines.data.read_whole",
        lambda data: read.append(data) or read_whole(data),
    )

    def found(*train, **how):
        search = kl.LotteryTicketSearch(
            model,
            [0.5, 0.8],
            criterion="snip",
            controls=None,
            prune_at_init=True,
            engine="fit",
        )
        options = {
            "validation_data": VALIDATION,
            "steps": 2,
            "shuffle": False,
            "batch_size": 16,
        }
        search.search(*train, **options | how, verbose=0)
        return search.masks(2)

    assert found(Batches()) == found(X, Y)
    assert len(read) == 1
