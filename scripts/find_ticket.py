"""Find a winning ticket and export it: see `--help`."""

import sys

from keras_lottery.cli import find

if __name__ == "__main__":
    sys.exit(find())
