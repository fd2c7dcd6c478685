"""Soft filter pruning."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.in_fit.callbacks import SoftFilterPruning
from tests.models_zoo import EAGER

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = X[:, :1] * X[:, 1:2]


def model():
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "tanh", name="one"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(8, "tanh", name="two"),
            layers.Dense(1, name="out"),
        ]
    )
    net.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", **EAGER)
    return kl.mask_model(net)


class Watch(keras.callbacks.Callback):
    """The zeros of a kernel's columns after each batch, and after each epoch."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def zeros(self):
        return ~kl.get_state(self.model)["one/kernel"].any(axis=0)

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(self.zeros())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.zeros())


def test_filters_become_zero_after_each_epoch_and_grow_back():
    net, watch = model(), Watch()
    soft = SoftFilterPruning(0.5, every=2)
    net.fit(X, Y, batch_size=16, epochs=4, verbose=0, callbacks=[soft, watch])
    assert [zeros.sum() for zeros in watch.epochs] == [0, 4, 0, 4]
    assert not any(zeros.any() for zeros in watch.batches)
    masks = kl.get_masks(net)
    # The least of the last epoch, with all that reads them.
    one = masks["one/kernel"].any(axis=0)
    np.testing.assert_array_equal(one, ~watch.epochs[-1])
    np.testing.assert_array_equal(masks["two/kernel"].any(axis=1), one)
    small = kl.compact(net)
    assert [small.get_layer(name).units for name in ("one", "two")] == [4, 4]


def test_a_model_without_filters_is_refused_before_it_is_trained():
    inputs = keras.Input((6,))
    net = kl.mask_model(keras.Model(inputs, layers.Dense(1)(inputs)))
    net.compile("sgd", "mse", **EAGER)
    with pytest.raises(ValueError, match="no filters or units"):
        net.fit(X, Y, verbose=0, callbacks=[SoftFilterPruning(0.5)])


@pytest.mark.once
@pytest.mark.parametrize("criterion", ["random", "l2"])
def test_the_filters_that_are_zero_at_the_end_are_those_that_go(criterion):
    net, watch = model(), Watch()
    soft = SoftFilterPruning(0.5, criterion)
    net.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[soft, watch])
    one = kl.get_masks(net)["one/kernel"].any(axis=0)
    np.testing.assert_array_equal(one, ~watch.epochs[-1])


@pytest.mark.once
def test_weights_that_another_callback_puts_back_are_pruned_too():
    class PutBack(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.before = self.model.get_weights()

        def on_train_end(self, logs=None):
            self.model.set_weights(self.before)

    net = model()
    soft = SoftFilterPruning(0.5)
    net.fit(X, Y, batch_size=16, epochs=1, verbose=0, callbacks=[soft, PutBack()])
    assert kl.get_masks(net)["one/kernel"].any(axis=0).sum() == 4
    # They are the least of those weights.
    norms = np.linalg.norm(kl.get_state(model())["one/kernel"], axis=0)
    kept = kl.get_masks(net)["one/kernel"].any(axis=0)
    assert norms[kept].min() > norms[~kept].max()
