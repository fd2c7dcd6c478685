"""Keeps Keras on another backend from importing TensorFlow if it is installed.

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
    """A stand-in for TensorFlow that is available only once TensorFlow is imported."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def available(self) -> bool:
        return "tensorflow" in sys.modules and self._module.available

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def copying_imports_no_tensorflow() -> None:
    """Makes Keras write and read configs without importing TensorFlow from now on.

    `keras.src.saving.serialization_lib.tf`, seen on Keras 3.15. Without it, each
    process that masks a model imports TensorFlow if it is installed, whatever the
    backend, which takes seconds and hundreds of megabytes. As long as TensorFlow is not
    imported, no object can be TensorFlow's.
    """
    module = getattr(serialization_lib, "tf", None)
    if module is not None and not isinstance(module, _OnceImported):
        serialization_lib.tf = _OnceImported(module)


@contextlib.contextmanager
def seeding_imports_no_tensorflow() -> Iterator[None]:
    """Inside, `keras.utils.set_random_seed` seeds TensorFlow only if it is imported.

    `keras.src.utils.rng_utils.tf`, seen on Keras 3.15. Without it, each search imports
    TensorFlow. The user's own calls still seed it, for `tf.data`.
    """
    module = getattr(rng_utils, "tf", None)
    if module is None:
        yield
        return
    with overridden(rng_utils, "tf", _OnceImported(module)):
        yield
