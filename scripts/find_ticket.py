"""Find a winning ticket and export it: see `--help`."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

from keras_lottery.cli import find

if __name__ == "__main__":
    sys.exit(find())
