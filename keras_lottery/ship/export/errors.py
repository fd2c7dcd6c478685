"""The error of an export that was tried and did not work."""

from collections.abc import Iterator
from contextlib import contextmanager


class ExportError(ValueError):
    """The file could not be written, or does not compute what the model computes."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Makes the errors of other libraries an `ExportError` that says what was tried."""
    try:
        yield
    except (ExportError, OSError, MemoryError):
        raise
    except Exception as error:
        # Some have no text, such as a failed `assert`.
        why = str(error) or repr(error)
        raise ExportError(f"{what} failed: {why}") from error
