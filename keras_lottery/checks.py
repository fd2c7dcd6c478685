"""Checkers of arguments: small, and of one message form everywhere.

Each takes the argument's name and value, and returns the value as a type of Python, or
raises `ValueError`: "Expected `name` to be …. Received: name=value. Remedy". NaN,
infinity and booleans do not count as numbers; NumPy's scalars do.
"""

import difflib
import math
import numbers
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

LARGEST = 2**31 - 1
"""The largest count that is accepted."""

# The beginning of a file that may be replaced, by its suffix. In text files, which
# people also write, it shows that the library wrote the file.
_SIGNS = {
    ".ticket": (b'{"__metadata__":{"sha256":"',),
    ".klc": (b"keras_lottery compressed",),
    ".keras": (b"PK\x03\x04",),
    ".tflite": (b"TFL3",),
    ".png": (b"\x89PNG",),
    ".pdf": (b"%PDF",),
    ".svg": (b"<svg", b"<?xml"),
    ".html": (b'name="generator" content="keras_lottery"',),
    ".c": (b"Written by keras_lottery",),
    ".h": (b"written by keras_lottery",),
    ".json": (b'"file": ', b'"level": '),
}


def refuse(name: str, expected: str, value: Any, remedy: str = "") -> NoReturn:
    """Raises the error about an argument.

    >>> refuse("steps", "at least 1", 0, "Leave it out.")
    Traceback (most recent call last):
    ...
    ValueError: Expected `steps` to be at least 1. Received: steps=0. Leave it out.
    """
    received = repr(value)
    if len(received) > 200:
        received = f"{received[:200]}…"
    text = f"Expected `{name}` to be {expected}. Received: {name}={received}. {remedy}"
    raise ValueError(text.strip())


def count(
    name: str, value: Any, least: int = 0, most: int = LARGEST, remedy: str = ""
) -> int:
    """Checks that a value is a whole number from `least` to `most`.

    >>> count("levels", np.int64(3), least=1)
    3
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        bound = f"at least {least}" if most == LARGEST else f"from {least} to {most}"
        if whole and value > most:
            bound = f"from {least} to {most}"
        refuse(name, f"a whole number, {bound}", value, remedy)
    return int(value)


def seed(name: str, value: Any) -> int:
    """Checks that a value is a seed of random numbers."""
    return count(name, value, 0, 2**63 - 1)


def number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    remedy: str = "",
) -> float:
    """Checks that a value is a finite number within bounds.

    The bound `least` is allowed, and the bound `above` is not.

    >>> number("learning_rate", 1, above=0)
    1.0
    """
    real = isinstance(value, numbers.Real | np.floating | np.integer)
    if (
        not real
        or isinstance(value, bool)
        or not math.isfinite(value)
        or (least is not None and value < least)
        or (most is not None and value > most)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    ):
        low = "" if least is None else f"from {least:g}"
        low = low if above is None else f"above {above:g}"
        high = "" if most is None else f"to {most:g}"
        high = high if below is None else f"below {below:g}"
        bounds = " ".join(part for part in (low, high) if part)
        refuse(name, f"a finite number {bounds}".strip(), value, remedy)
    return float(value)


def fraction(
    name: str, value: Any, *, zero: bool = True, one: bool = False, remedy: str = ""
) -> float:
    """Checks that a value is a share: a number from 0 to 1, with or without its ends.

    >>> fraction("sparsity", 0.5)
    0.5
    """
    low: dict[str, float] = {"least": 0} if zero else {"above": 0}
    high: dict[str, float] = {"most": 1} if one else {"below": 1}
    return number(name, value, **low, **high, remedy=remedy)


def verbose(name: str, value: Any) -> int:
    """Checks that a value is 0 or 1, or False or True."""
    return count(name, int(value) if isinstance(value, bool) else value, 0, 1)


def flag(name: str, value: Any) -> bool:
    """Checks that a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        refuse(name, "True or False", value)
    return bool(value)


def text(name: str, value: Any) -> str:
    """Checks that a value is a text that is not empty."""
    if not isinstance(value, str) or not value:
        refuse(name, "a text that is not empty", value)
    return value


def function(name: str, value: Any, form: str = "a function") -> Any:
    """Checks that a value can be called."""
    if not callable(value):
        refuse(name, form, value)
    return value


def instance(name: str, value: Any, kind: Any, form: str, remedy: str = "") -> Any:
    """Checks that a value is an object of a class, or of one of several."""
    if not isinstance(value, kind):
        refuse(name, form, value, remedy)
    return value


def choice(
    name: str, value: Any, choices: Collection[Any], other: str = "", remedy: str = ""
) -> Any:
    """Checks that a value is one of several, such as names.

    Args:
        name, value: the argument.
        choices: the values that it may have.
        other: what else it may be, for the error.
        remedy: the remedy for the error if no choice is similar to the value.

    >>> choice("target", "mobil", ["mobile", "server"])
    Traceback (most recent call last):
    ...
    ValueError: Expected `target` to be one of ['mobile', 'server']. Received:
    target='mobil'. Did you mean 'mobile'?
    """
    # `in` would not do: comparing an array gives an array, and True equals 1.
    for known in choices:
        same = isinstance(value, bool) == isinstance(known, bool)
        if same and isinstance(value, type(known)) and known == value:
            return known
    expected = f"one of {list(choices)}" + (f", or {other}" if other else "")
    texts = [known for known in choices if isinstance(known, str)]
    hint = did_you_mean(value, texts) if isinstance(value, str) else ""
    refuse(name, expected, value, hint + remedy)


def did_you_mean(value: Any, names: Iterable[str]) -> str:
    """A hint at the name that is most similar to a wrong one, if any is similar.

    >>> did_you_mean("magnitud", ["magnitude", "random"])
    "Did you mean 'magnitude'? "
    """
    close = difflib.get_close_matches(str(value), list(names), 1)
    return f"Did you mean {close[0]!r}? " if close else ""


def names(name: str, value: Any, form: str = "a list of names") -> list[str]:
    """Checks that a value is a list of texts that are not empty; the list may be."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        refuse(name, form, value)
    found = list(value)
    if not all(isinstance(text, str) and text for text in found):
        refuse(name, form, found)
    return found


def sequence(name: str, value: Any, form: str, least: int = 0) -> Sequence[Any]:
    """Checks that a value is a list or tuple with at least `least` items, not a text.

    >>> sequence("at", "3", "a list of steps")
    Traceback (most recent call last):
    ...
    ValueError: Expected `at` to be a list of steps. Received: at='3'.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) < least:
        refuse(name, form, value)
    return value


def array(
    name: str, value: Any, form: str = "an array", dimensions: Collection[int] = ()
) -> np.ndarray:
    """Checks that a value is an array of finite numbers, with so many dimensions.

    >>> array("b", [1, np.nan])
    Traceback (most recent call last):
    ...
    ValueError: Expected `b` to be an array of finite numbers. Received: b=[1, nan].
    """
    try:
        found = np.asarray(value)
        good = found.dtype.kind in "iuf" and bool(np.isfinite(found).all())
    except (TypeError, ValueError):
        good = False
    if not good or (dimensions and found.ndim not in dimensions):
        refuse(name, f"{form} of finite numbers", value)
    return found


def path(name: str, value: Any, suffixes: Sequence[str] = (), remedy: str = "") -> Path:
    """Checks a path to write: not empty, no directory, and with a known suffix.

    A file of another kind is not overwritten, and neither is one that has the suffix
    but holds something else.

    >>> path("path", "figure.jpg", (".png", ".svg"))
    Traceback (most recent call last):
    ...
    ValueError: Expected `path` to be a path that ends in .png, .svg. Received:
    path='figure.jpg'.
    """
    found = existing_file(name, value, suffixes, remedy)
    _within_directory(name, found)
    if found.exists() and found.suffix in _SIGNS:
        with open(found, "rb") as file:
            beginning = file.read(1000)
        if beginning and not any(s in beginning for s in _SIGNS[found.suffix]):
            expected = "a new file, or one of this kind to replace"
            remedy = "The file there holds something else: move it, or choose another."
            refuse(name, expected, _shown(value), remedy)
    return found


def directory(name: str, value: Any) -> Path:
    """Checks the path of a directory to write to, which exists or can be made.

    >>> directory("directory", "s3://bucket/run")
    Traceback (most recent call last):
    ...
    ValueError: Expected `directory` to be a path of this machine, not an address.
    Received: directory='s3://bucket/run'. Write to a local folder, and copy it there,
    or mount the storage.
    """
    found = _path(name, value)
    _within_directory(name, found / "file")
    return found


def existing_directory(name: str, value: Any) -> Path:
    """Checks the path of a directory to read; it need not exist, but is no file."""
    found = _path(name, value)
    for place in (found, *found.parents):
        if place.is_file():
            refuse(name, "a directory", _shown(value), f"'{place}' is a file.")
    return found


def existing(name: str, value: Any) -> Path:
    """Checks the path of a file or directory to read; it need not exist."""
    return _path(name, value)


def existing_file(
    name: str, value: Any, suffixes: Sequence[str] = (), remedy: str = ""
) -> Path:
    """Checks the path of a file to read; it need not exist, but is no directory."""
    found = _path(name, value)
    if suffixes and found.suffix not in suffixes:
        ends = f"a path that ends in {', '.join(suffixes)}"
        refuse(name, ends, _shown(value), remedy)
    if found.is_dir():
        refuse(name, "a file", _shown(value), "It is a directory.")
    return found


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        refuse(name, "a path that is not empty", value)
    if re.match(r"[A-Za-z][\w+.-]+:/", os.fsdecode(value)):
        # Used as a path, the URL would be a local folder of that name.
        remedy = "Write to a local folder, and copy it there, or mount the storage."
        refuse(name, "a path of this machine, not an address", value, remedy)
    return Path(value)


def _shown(value: Any) -> str:
    return os.fspath(value)


def _within_directory(name: str, path: Path) -> None:
    """Raises ValueError if a file exists where the path needs a directory."""
    for parent in path.parents:
        if parent.is_dir():
            if not os.access(parent, os.W_OK):
                remedy = f"'{parent}' is read-only for you."
                refuse(name, "a place that you may write to", _shown(path), remedy)
            return
        if parent.exists():
            refuse(name, "inside a directory", _shown(path), f"'{parent}' is a file.")
