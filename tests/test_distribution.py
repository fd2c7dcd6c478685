"""One training over several devices, inside Keras's own distribution."""

import contextlib
import os
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_state
from tests.in_fit.callbacks import test_admm as admm
from tests.keras_bridge.layers.test_masked import assert_trained_at_zeros
from tests.models_zoo import compiled, inputs, mlp, pruned
from tests.search import test_workers as small

pytestmark = pytest.mark.slow

TENSORFLOW = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope
"""
JAX = """
import keras
scope = keras.distribution.DataParallel().scope
"""


def a_search(scope):
    with scope():
        search = kl.LotteryTicketSearch(small.build, [0.5], controls={}, workers=0)
        table = search.search(**small.FIT | {"epochs": 1})
    assert len(table) == 2 and table.notna().all(axis=None)
    ticket = search.ticket(1)
    for name, mask in ticket.masks.items():
        assert (ticket.trained[name][~mask] == 0).all()
        assert (ticket.trained[name][mask] != 0).all()


def masks_that_change(scope):
    with scope():
        model = pruned(compiled(mlp(), keras.optimizers.AdamW(0.05)), 0.25)
    before = get_state(model)
    callback = kl.GradualPruning(0.75, 1, 3, frequency=1, initial_sparsity=0.5)
    # Slots are made in `fit`, outside of the scope.
    x, y = inputs(model, 16), np.ones((16, 2))
    model.fit(x, y, 4, verbose=0, shuffle=False, callbacks=[callback])
    assert_trained_at_zeros(model, 9, before)
    for weight in model.trainable_weights:
        one, other = (part.numpy() for part in weight.value.values)
        np.testing.assert_array_equal(one, other)


def admm_pulls_as_one(scope):
    with scope():
        model = admm.regression()
        admm.run(model, [kl.ADMMPruning(0.7, rho=0.5)])
    w, z, *_ = admm.by_hand(2 * admm.STEPS, 6, rho=0.5)
    np.testing.assert_allclose(admm.kernel(model), np.where(z, w, 0), atol=1e-5)


def movement_is_of_the_whole_batch(scope):
    moved = []
    for devices in (1, 2):
        with scope() if devices == 2 else contextlib.nullcontext():
            admm.regressions.cache_clear()  # They have the variables of their scope.
            model = admm.regression()
            callback = kl.MovementPruning(0.5, 50, 60)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # It ends before anything is pruned.
                admm.run(model, [callback])
        moved.append(callback._moved)
    assert moved[0].keys() == moved[1].keys() != set()
    for name, array in moved[0].items():
        np.testing.assert_allclose(moved[1][name], array, rtol=1e-3, atol=1e-6)


PARTS = {
    "tensorflow": (
        TENSORFLOW,
        [
            *(a_search, masks_that_change, admm_pulls_as_one),
            movement_is_of_the_whole_batch,
        ],
    ),
    "jax": (JAX, [a_search]),
}


def train(scope, parts):
    """In a process of its own: names what worked, shows what did not."""
    for part in parts:
        try:
            part(scope)
            print(part.__name__)
        except Exception:
            traceback.print_exc()


def test_over_two_devices():
    backend = keras.backend.backend()
    if backend not in PARTS:
        pytest.skip("needs TensorFlow or JAX")
    # Devices must be set before the backend starts.
    begin, parts = PARTS[backend]
    run = (
        "from tests.test_distribution import PARTS, train\n"
        f"train(scope, PARTS[{backend!r}][1])\n"
    )
    flags = "--xla_force_host_platform_device_count=2"
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", begin + run],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": root},
    )
    assert done.stdout.split() == [part.__name__ for part in parts], done.stderr
