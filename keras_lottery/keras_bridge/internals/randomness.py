"""Random numbers of the whole process: Python's, NumPy's, Keras's and TensorFlow's.

Everything here was seen on Keras 3.15.
"""

import contextlib
import random
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.internals.no_tensorflow import (
    seeding_imports_no_tensorflow,
)

_SEED, _GENERATOR = "global_random_seed", "global_seed_generator"


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, random numbers come from a seed; afterwards they continue as before.

    `keras.src.backend.common.global_state`, seen on Keras 3.15, holds the seed and the
    generator that `keras.utils.set_random_seed` replaces. There is no public way to
    restore them, and the user's random numbers would come from our seed from then on.
    """
    with _kept(), backends.current().seeded(seed):
        with seeding_imports_no_tensorflow():
            keras.utils.set_random_seed(seed)
        yield


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Inside, Keras may draw seeds for new layers; afterwards its state is restored."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    own = {
        name: global_state.get_global_attribute(name) for name in (_SEED, _GENERATOR)
    }
    context = _tensorflow_context()
    # `_seed` and `_rng` of TensorFlow's `Context`, which has no public names for them.
    # `tf.random.set_seed` would restart the old seed's numbers.
    seeds = {k: v for k, v in vars(context).items() if k in ("_seed", "_rng")}
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for name, value in own.items():
            global_state.set_global_attribute(name, value)
        for name in ("_seed", "_rng"):
            vars(context).pop(name, None)
        vars(context).update(seeds)


def _tensorflow_context() -> Any:
    if "tensorflow" not in sys.modules:
        return SimpleNamespace()
    from tensorflow.python.eager import context

    return context.context()
