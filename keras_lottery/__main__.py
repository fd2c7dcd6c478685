"""`python -m keras_lottery`: the command line, where its folder is on no path."""

import sys

from keras_lottery.cli import main

if __name__ == "__main__":
    sys.exit(main())
