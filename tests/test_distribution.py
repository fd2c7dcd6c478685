"""One training over several devices: a search inside Keras's own distribution."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
SEARCH = """
from tests.search.test_workers import FIT, build
import keras_lottery as kl
search = kl.LotteryTicketSearch(build, [0.5], workers=0)
table = search.search(**FIT)
assert len(table) == 3 and table.notna().all(axis=None)
ticket = search.ticket(1)
for name, mask in ticket.masks.items():
    assert (ticket.trained[name][~mask] == 0).all()
    assert (ticket.trained[name][mask] != 0).all()
"""
TENSORFLOW = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
context = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
"""
JAX = """
import keras
context = keras.distribution.DataParallel().scope()
"""


def test_a_search_over_two_devices():
    begin = {"tensorflow": TENSORFLOW, "jax": JAX}.get(keras.backend.backend())
    if begin is None:
        pytest.skip("needs TensorFlow or JAX")
    indented = SEARCH.strip().replace("\n", "\n    ")
    code = f"{begin}\nwith context:\n    {indented}\n"
    flags = "--xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
