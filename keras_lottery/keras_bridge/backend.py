"""The backends of Keras that the library works on."""

import os
import sys

BACKENDS = ("tensorflow", "jax")


def check_backend(name: str | None = None) -> None:
    """Raises ImportError unless Keras works on a backend that the library knows.

    Args:
        name: the backend; by default the one that Keras works on, or will.
    """
    if name is None and "keras" not in sys.modules:
        # Keras itself would ask for the backend to be installed first.
        name = os.environ.get("KERAS_BACKEND")
    if not name:
        import keras

        name = keras.backend.backend()
    if name not in BACKENDS:
        raise ImportError(
            f"keras_lottery works on Keras's backends {' and '.join(BACKENDS)}. "
            f"Received: {name}. Set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax "
            "before Keras is imported."
        )
