"""Nothing global is changed by a call: streams, loggers, random numbers, settings."""

import logging
import os
import random
import signal
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras.src.utils.rng_utils import get_random_seed

import keras_lottery as kl
from keras_lottery import testing
from keras_lottery.keras_bridge.layers import redraw
from keras_lottery.quiet import quiet
from keras_lottery.structured import scratch
from keras_lottery.testing import example

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = np.ones((8, 2), "float32")


def everything():
    """What is global, by name."""
    state = {
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "logging": (logging.root.manager.disable, logging.root.level),
        "handlers": list(logging.root.handlers),
        "warnings": list(warnings.filters),
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "seed": get_random_seed(),
        "errors": np.geterr(),
        "keras": (
            keras.config.floatx(),
            keras.config.dtype_policy().name,
            keras.config.image_data_format(),
            keras.config.epsilon(),
            keras.config.is_traceback_filtering_enabled(),
        ),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }
    if BACKEND == "jax":
        import jax

        return state | {"jax": dict(jax.config.values)}
    if BACKEND == "torch":
        import torch

        return state | {"torch": torch.get_rng_state().tolist()}
    import tensorflow as tf
    from tensorflow.python.eager import context

    return state | {
        "tensorflow": (
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
            tf.config.get_soft_device_placement(),
            tf.config.optimizer.get_jit(),
            tf.config.functions_run_eagerly(),
            tf.executing_eagerly(),
            vars(context.context()).get("_seed"),
            vars(context.context()).get("_rng"),
        ),
        "logger": (tf.get_logger().level, list(tf.get_logger().handlers)),
    }


def model():
    x = keras.Input((4,))
    y = layers.Dropout(0.1)(layers.Dense(6, "relu")(x))
    model = keras.Model(x, layers.Dense(2)(y))
    model.compile("sgd", "mse")
    return model


def half(**kwargs):
    masked = kl.mask_model(model())
    kl.prune(masked, 0.5, **kwargs)
    return masked


def ticket(masked, folder):
    found = kl.EarlyBird(0.5, 0.5, queue=2)
    found.set_model(masked)
    found.set_params({"epochs": 1, "steps": 1})
    found.on_train_begin()
    found.on_epoch_begin(0)
    found.on_epoch_end(0)
    found.ticket().save(folder / "early.ticket")
    return kl.load_ticket(folder / "early.ticket").initial_model()


def compressed(masked, folder):
    kl.save_compressed(masked, folder / "m.klc")
    return kl.load_compressed(folder / "m.klc")


def search(masked, folder):
    made = kl.LotteryTicketSearch(model, [0.5], objective="val_loss", workers=0)
    made.search(X, Y, validation_data=(X, Y), batch_size=4, epochs=1, verbose=0)
    return made.ticket(1)


def transfer(masked, folder):
    fit = {"validation_data": (X, Y), "epochs": 1, "batch_size": 4}
    return kl.compare_transfer(
        search(masked, folder),
        kl.strip_masks(masked),
        X,
        Y,
        objective="val_loss",
        verbose=0,
        **fit,
    )


def unbuilt():
    """The contract tests, as if none had built its example before."""
    example._model.cache_clear()
    return testing


CALLS = {
    "search": search,
    "mask_model": lambda masked, folder: kl.mask_model(masked),
    "strip_masks": lambda masked, folder: kl.layers.strip_masks(masked),
    "compact": lambda masked, folder: kl.compact(masked),
    "scratch": lambda masked, folder: scratch(masked, kl.layers.get_state(masked), 1),
    "redraw": lambda masked, folder: redraw(masked, 3),
    "learn_masks": lambda masked, folder: kl.learned_ticket(
        kl.learn_masks(masked, seed=0)
    ),
    **{
        criterion: lambda masked, folder, name=criterion: kl.prune(
            masked, 0.6, name, data=(X, Y)
        )
        for criterion in ("random", "snip", "grasp", "synflow", "obd")
    },
    "prune_filters": lambda masked, folder: kl.prune(masked, 0.5, granularity="filter"),
    "share": lambda masked, folder: kl.share_weights(masked, 2),
    "compress": compressed,
    "to_keras": lambda masked, folder: kl.export.to_keras(masked, folder / "m.keras"),
    "ticket": ticket,
    "check_criterion": lambda masked, folder: unbuilt().check_criterion("magnitude"),
    "check_control": lambda masked, folder: unbuilt().check_control("reinit"),
    "check_allocation": lambda masked, folder: testing.check_allocation("global"),
    "check_grouping": lambda masked, folder: testing.check_grouping("filter"),
    "check_schedule": lambda masked, folder: testing.check_schedule("geometric"),
    "check_masked_layer": lambda masked, folder: testing.check_masked_layer(
        lambda: layers.Dense(3), X
    ),
    "layer_criticality": lambda masked, folder: kl.analysis.layer_criticality(
        masked, {"now": kl.layers.get_state(masked)}, (X, Y), objective="val_loss"
    ),
    "compare_transfer": transfer,
}
TENSORFLOW = {
    "to_saved_model": lambda masked, folder: kl.export.to_saved_model(
        masked, folder / "saved"
    ),
    "to_litert": lambda masked, folder: kl.export.to_litert(
        masked, folder / "m.tflite"
    ),
    "benchmark": lambda masked, folder: kl.benchmark(
        [kl.export.to_litert(masked, folder / "m.tflite").path], seconds=0.01
    ),
}


@pytest.mark.parametrize("name", [*CALLS, *TENSORFLOW])
def test_a_call_leaves_everything_as_it_was(name, tmp_path):
    if name in TENSORFLOW and BACKEND != "tensorflow":
        pytest.skip("needs TensorFlow")
    masked = half()
    before = everything()
    (CALLS | TENSORFLOW)[name](masked, tmp_path)
    after = everything()
    assert {key: after[key] for key in before} == before


@pytest.mark.tensorflow
def test_loggers_that_are_made_in_an_export_still_work():
    """TensorFlow's takes the stream that there is when it is first asked for."""
    stream = sys.stderr
    with quiet():
        handler = logging.StreamHandler()
        logging.getLogger("faults").warning("dropped")
    assert handler.stream is stream and not stream.closed
    assert not logging.getLogger("faults").disabled
