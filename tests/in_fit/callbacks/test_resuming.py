"""Every callback of ours in trainings that are interrupted, resumed or repeated."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras.callbacks import BackupAndRestore

import keras_lottery as kl
from keras_lottery.in_fit.callbacks import (
    GroupLasso,
    QuantizationAware,
    SharedWeights,
    share_weights,
)
from tests.models_zoo import arrays, assert_equal, cases

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 6)).astype("float32"), np.ones((4, 4), "float32")
EPOCHS, BATCHES = 3, 2

CALLBACKS = {
    "gradual": lambda: kl.GradualPruning(0.8, 0, 5, frequency=1, power=1),
    "lasso": lambda: GroupLasso(0.5, growth=0.5, frequency=2),
    "nest": lambda: kl.NeST(0.8, 3, 5, (X, Y), frequency=1),
    "quantization": QuantizationAware,
    "rigl": lambda: kl.RigL(0.5, 6, (X, Y), frequency=1),
    "set": lambda: kl.SET(0.5, 6, frequency=1),
    "sharing": SharedWeights,
}
# They keep what no backup holds.
REFUSED = {
    "admm": lambda: kl.ADMMPruning(0.5, rho=0.5, frequency=1),
    "movement": lambda: kl.MovementPruning(0.8, 1, 5, frequency=1, power=1),
    "early_bird": lambda: kl.EarlyBird(0.5, 0.5, queue=3),
}
ALL = CALLBACKS | REFUSED


class Interrupt(keras.callbacks.Callback):
    """Interrupts the training in its second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            raise KeyboardInterrupt


@functools.cache
def start():
    """One model for all tests, with weights that share values."""
    dense = keras.layers.Dense(4, use_bias=False)
    model = kl.mask_model(keras.Sequential([keras.Input((6,)), dense]))
    share_weights(model, bits=2)
    return model, kl.get_masks(model), kl.get_state(model)


def fresh():
    model, masks, state = start()
    kl.layers.set_masks(model, masks)
    kl.set_state(model, state)
    model._initial_epoch = None  # As of a new process.
    return compiled(model)


def compiled(model):
    # It takes longer to compile so few steps than to run them.
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", run_eagerly=True)
    return model


def fit(model, *callbacks, epochs=EPOCHS, **kwargs):
    with warnings.catch_warnings():
        # Some of these trainings are too short for what they are asked.
        warnings.simplefilter("ignore")
        model.fit(
            X,
            Y,
            len(X) // BATCHES,
            epochs,
            callbacks=[*callbacks],
            shuffle=False,
            verbose=0,
            **kwargs,
        )
    return arrays(model)


@functools.cache
def unbroken(name, epochs=EPOCHS):
    return fit(fresh(), ALL[name](), epochs=epochs)


def interrupted(name, first, folder):
    """The callbacks of a training that has been interrupted and goes on."""

    def callbacks():
        both = [ALL[name](), BackupAndRestore(folder)]
        return both[::-1] if first == "backup" else both

    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), *callbacks(), Interrupt())
    return callbacks()


@pytest.mark.parametrize("first", cases(["ours", "backup"], ["ours"]))
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_training_that_was_interrupted_ends_like_an_unbroken_one(
    name, first, tmp_path
):
    callbacks = interrupted(name, first, tmp_path / "backup")
    assert_equal(fit(fresh(), *callbacks), unbroken(name))


@pytest.mark.once
@pytest.mark.parametrize("first", cases(["ours", "backup"], ["ours"]))
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_backup_holds_refuses_to_go_on(name, first, tmp_path):
    callbacks = interrupted(name, first, tmp_path / "backup")
    with pytest.raises(ValueError, match="restored at epoch 1"):
        fit(fresh(), *callbacks)


@pytest.mark.once
def test_shared_values_that_differ_in_their_last_digits_are_refused():
    """As they are in the middle of an epoch."""
    model = fresh()
    model._initial_epoch = 0  # As BackupAndRestore sets it.
    kernel = model.layers[0].weight_variable("kernel")
    values = np.array(kernel)
    values[0, 0] = np.nextafter(values[0, 0], np.float32(9))
    kernel.assign(values)
    with pytest.raises(ValueError, match="middle of an epoch"):
        fit(model, SharedWeights())


@pytest.mark.once
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_backup_of_all_epochs_trains_no_more(name, tmp_path):
    backup = functools.partial(
        BackupAndRestore, tmp_path / "backup", delete_checkpoint=False
    )
    fit(fresh(), CALLBACKS[name](), backup())
    assert_equal(fit(fresh(), CALLBACKS[name](), backup()), unbroken(name))


@pytest.mark.once
@pytest.mark.parametrize("name", ALL)
def test_epochs_may_be_counted_from_any_number(name):
    again = fit(fresh(), ALL[name](), initial_epoch=2, epochs=4)
    assert_equal(again, unbroken(name, 2))


@pytest.mark.once
@pytest.mark.parametrize("name", ["gradual", "movement", "nest", "rigl", "set"])
def test_two_fits_are_one(name):
    model, callback = fresh(), ALL[name]()
    fit(model, callback, epochs=1)
    assert_equal(fit(model, callback, initial_epoch=1), unbroken(name))


@pytest.mark.once
@pytest.mark.parametrize("compile_between", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_callback_that_has_been_used_is_as_good_as_a_new_one(name, compile_between):
    if name == "movement" and not compile_between:
        return  # It goes on with what it knows of the model.
    ends = []
    for reused in (True, False):
        model, callback = fresh(), ALL[name]()
        fit(model, callback, epochs=1)
        if compile_between:
            compiled(model)
        ends.append(fit(model, callback if reused else ALL[name](), epochs=1))
    assert_equal(*ends)
