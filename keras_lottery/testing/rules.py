"""Helpers of the checks: raising for broken rules, and comparing arrays by name."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def rule(kept: bool, text: str, received: Any) -> None:
    """Raises AssertionError with the rule's text if the rule is broken."""
    if not kept:
        raise AssertionError(f"Broken rule: {text}. Received: {received}")


def refuses(call: Callable[[], Any], text: str) -> None:
    """Raises AssertionError with the rule's text unless a call raises ValueError."""
    try:
        made = call()
    except ValueError:
        return
    raise AssertionError(f"Broken rule: {text}. Received: no ValueError, but {made!r}")


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two mappings hold equal arrays by equal names; NaN equals NaN."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=_is_float(one[name]))
        for name in one
    )


def copies(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies of arrays by name."""
    return {name: np.array(array) for name, array in arrays.items()}


def shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of arrays by name."""
    return {name: tuple(np.shape(array)) for name, array in arrays.items()}


def _is_float(array: Any) -> bool:
    return np.issubdtype(np.asarray(array).dtype, np.inexact)
