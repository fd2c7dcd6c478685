"""Silence for converters that talk."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Drops all output inside the block, including that of C++ code to stderr.

    `sys.stderr` stays the same object, because a logger that is made inside keeps it.
    """
    sys.stderr.flush()
    disabled, stderr = logging.root.manager.disable, os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable()
            os.dup2(nowhere, 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
        logging.disable(disabled)
