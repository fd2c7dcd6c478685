"""The error of an export that failed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class ExportError(ValueError):
    """The file could not be written, or does not compute what the model computes."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Turns errors of other libraries into an `ExportError` that names the step."""
    try:
        yield
    except (ExportError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ExportError(f"{what} failed: {in_short(error)}") from error


def in_short(error: Exception) -> str:
    """An error in one line, without the text that Keras adds to it.

    >>> in_short(ValueError("Exception encountered when calling Dense.call().\\n\\n"
    ...     "\\x1b[1mWrong shape\\x1b[0m\\n\\nArguments received by Dense.call():\\n"))
    'Wrong shape'
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    text = re.sub(
        r"Exception encountered when calling \S+\(\)\.|{{function_node \S+}}", "", text
    )
    # Some errors have no text, such as that of a failed `assert`.
    return " ".join(text.split()) or repr(error)
