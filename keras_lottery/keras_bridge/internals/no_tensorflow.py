"""Keras on another backend, which imports TensorFlow to see whether it is there.

Everything here was seen on Keras 3.15.
"""

import sys
from typing import Any

from keras.src.saving import serialization_lib
from keras.src.utils import rng_utils


class _OnceImported:
    """TensorFlow as a module that is there once somebody has imported it."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def available(self) -> bool:
        return "tensorflow" in sys.modules and self._module.available

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def import_no_tensorflow() -> None:
    """Keras copies layers and seeds random numbers without importing TensorFlow.

    `keras.src.saving.serialization_lib.tf` and `keras.src.utils.rng_utils.tf`, seen on
    Keras 3.15. Without it, each process that masks a model or trains one imports
    TensorFlow where it is installed, whatever the backend, which takes seconds and
    hundreds of megabytes. As long as nobody has imported it, nothing is TensorFlow's.
    """
    for module in (serialization_lib, rng_utils):
        if not isinstance(module.tf, _OnceImported):
            module.tf = _OnceImported(module.tf)
