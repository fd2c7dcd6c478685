"""Names for the functions that a search is made of."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def look_up(
    argument: str,
    value: Any,
    registered: Mapping[str, T],
    form: str,
    kind: Any = Callable,
) -> T:
    """What is registered under a name, or the object given instead of one.

    Args:
        argument: the argument's name, for the error.
        value: a name, or an object of one's own.
        registered: objects by name.
        form: what an object of one's own has to be, for the error.
        kind: the class of such an object.

    Raises:
        ValueError: if it is neither.

    >>> look_up("power", "square", {"square": lambda x: x * x}, "a function")(3)
    9
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value in registered:
        return registered[value]
    raise ValueError(
        f"Expected `{argument}` to be one of {sorted(registered)}, or {form}. "
        f"Received: {argument}={value!r}"
    )
