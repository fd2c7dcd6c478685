"""Keras on another backend, which imports TensorFlow to see whether it is there.

Everything here was seen on Keras 3.15.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from keras.src.saving import serialization_lib
from keras.src.utils import rng_utils

from keras_lottery.keras_bridge.internals.patches import overridden


class _OnceImported:
    """TensorFlow as a module that is there once somebody has imported it."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def available(self) -> bool:
        return "tensorflow" in sys.modules and self._module.available

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def copying_imports_no_tensorflow() -> None:
    """Keras writes and reads configs without importing TensorFlow, from now on.

    `keras.src.saving.serialization_lib.tf`, seen on Keras 3.15. Without it, each
    process that masks a model imports TensorFlow where it is installed, whatever the
    backend, which takes seconds and hundreds of megabytes. As long as nobody has
    imported it, nothing is TensorFlow's.
    """
    module = getattr(serialization_lib, "tf", None)
    if module is not None and not isinstance(module, _OnceImported):
        serialization_lib.tf = _OnceImported(module)


@contextlib.contextmanager
def seeding_imports_no_tensorflow() -> Iterator[None]:
    """Inside, `keras.utils.set_random_seed` seeds TensorFlow if it is imported already.

    `keras.src.utils.rng_utils.tf`, seen on Keras 3.15. Without it, each search imports
    TensorFlow. Calls of the user's own seed it still, for `tf.data`.
    """
    module = getattr(rng_utils, "tf", None)
    if module is None:
        yield
        return
    with overridden(rng_utils, "tf", _OnceImported(module)):
        yield
