"""Run a paper's experiment: see `--help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

from keras_lottery.cli import reproduce

if __name__ == "__main__":
    sys.exit(reproduce())
