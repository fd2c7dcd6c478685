"""The start of a command, without the notes that TensorFlow makes as it starts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_lottery.quiet import quiet

# "-m" is what Python puts there until it has found the module.
COMMANDS = {"keras-lottery", "find_ticket", "reproduce", "-m"}


@contextmanager
def starting() -> Iterator[None]:
    """Inside, and while Keras is imported after it, a command is silent.

    TensorFlow's C++ code writes to stderr whatever its settings say. To see what it
    has to say, of a GPU for example, set `TF_CPP_MIN_LOG_LEVEL=0`.
    """
    is_command = Path(sys.argv[0]).stem in COMMANDS
    # Workers inherit both what was started and the level: that of errors.
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
    if not is_command or level != "2":
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = level
    with quiet():
        yield
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Its devices are looked for now.
            tf.config.list_logical_devices()
