"""Run a paper's experiment: see `--help`."""

import sys

from keras_lottery.cli import reproduce

if __name__ == "__main__":
    sys.exit(reproduce())
