"""Shared parts of the commands: a parser, types of arguments, and exit statuses."""

import argparse
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from keras_lottery import checks
from keras_lottery.tickets import grouping
from keras_lottery.tickets.grouping import Granularity

# These errors are wrong input, whichever option causes them.
NO_SUCH_PLACE = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class Parser(argparse.ArgumentParser):
    """An `argparse` parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def add_threads(parser: Parser) -> None:
    """Adds `--threads` to a command that times files."""
    parser.add_argument(
        "--threads",
        type=at_least(1),
        default=1,
        help="threads with which each file runs (default: %(default)s)",
    )


def add_seconds(parser: Parser, default: float) -> None:
    """Adds `--seconds` to a command that times files."""
    parser.add_argument(
        "--seconds",
        type=positive,
        default=default,
        help="seconds for which each file is timed (default: %(default)s)",
    )


def add_verbose(parser: Parser) -> None:
    """Adds `--verbose` to a command that shows progress."""
    parser.add_argument(
        "--verbose",
        type=int,
        choices=(0, 1),
        default=1,
        help="0 hides the progress (default: %(default)s)",
    )


def run(parser: Parser, arguments: Sequence[str] | None) -> int:
    """Runs the command that was requested.

    Returns:
        The exit status: 0, or 2 for wrong input, 1 for a failure while running, and 130
        if stopped; the error is printed.
    """
    options = parser.parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    # On Windows, files and pipes may not accept every character, such as a minus sign.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="namereplace")
    formatwarning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    try:
        options.function(options)
    except (ValueError, ImportError, *NO_SUCH_PLACE) as error:
        print(f"{parser.prog}: {as_options(str(error))}", file=sys.stderr)
        return 2
    except (FloatingPointError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        anew = getattr(options, "overwrite", False)
        how = ", without --overwrite," if anew else ""
        print(f"Stopped. Run the command again{how} to go on.", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = formatwarning
    return 0


def as_options(text: str) -> str:
    """Rewrites an error of the library with the names of command-line options.

    >>> as_options("Choose another `directory`, or use `overwrite=True`.")
    'Choose another --directory, or use --overwrite.'
    """
    words = {"`directory`": "--directory", "`overwrite=True`": "--overwrite"}
    words |= {"`part`": "--replicate", "part=": "--replicate "}
    for api, option in words.items():
        text = text.replace(api, option)
    return text


def at_least(least: int, most: int = checks.LARGEST) -> Callable[[str], int]:
    """The type of whole numbers that are at least `least`."""
    return _typed(_whole, lambda value: checks.count("", value, least, most))


def share(text: str) -> float:
    """The type of numbers above 0 and below 1."""
    return _typed(_real, lambda value: checks.fraction("", value, zero=False))(text)


def positive(text: str) -> float:
    """The type of numbers above 0."""
    return _typed(_real, lambda value: checks.number("", value, above=0))(text)


def not_negative(text: str) -> float:
    """The type of numbers that are at least 0."""
    return _typed(_real, lambda value: checks.number("", value, 0))(text)


def word(text: str) -> str:
    """The type of texts that are not empty."""
    return _typed(str, lambda value: checks.text("", value))(text)


def directory(text: str) -> Path:
    """The type of directories to write to."""
    return _typed(str, lambda value: checks.directory("", value))(text)


def file(*suffixes: str) -> Callable[[str], Path]:
    """The type of files to write, with one of the suffixes."""
    return _typed(str, lambda value: checks.path("", value, suffixes))


def keras_file(text: str) -> Path:
    """The type of .keras files to read."""
    path = Path(text)
    if path.suffix != ".keras" or not path.is_file():
        raise argparse.ArgumentTypeError(
            f"expected an existing .keras file. Received: {text!r}"
        )
    return path


def _typed(read: Callable[[str], Any], check: Callable[[Any], Any]) -> Any:
    """Makes a type of `argparse` from a checker, with the checker's error messages."""

    def of(text: str) -> Any:
        value = read(text)
        try:
            return check(value)
        except ValueError as error:
            # The parser names the option.
            message = str(error).replace("Expected `` to be", "expected")
            message = message.replace(f"Received: ={value!r}", f"Received: {text!r}")
            raise argparse.ArgumentTypeError(message) from error

    return of


def _whole(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _real(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def list_of(option: str, choices: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of some of the `choices`, separated by commas, or `none`."""

    def read(text: str) -> list[str]:
        words = [] if text == "none" else text.split(",")
        for word in words:
            if word not in choices:
                raise argparse.ArgumentTypeError(
                    f"invalid choice: {word!r} (choose from {', '.join(choices)}, none)"
                )
        return words

    return read


def names_of_layers(text: str) -> str | list[str]:
    """The type of `prunable=`: a name, or several separated by commas.

    >>> names_of_layers("xnnpack"), names_of_layers("conv*,head")
    ('xnnpack', ['conv*', 'head'])
    """
    names = [word(name) for name in text.split(",")]
    return names if len(names) > 1 else names[0]


def granularity(text: str) -> Granularity:
    """The type of `granularity=`, one or by pattern of layers.

    >>> granularity("conv*=2:4,head=weight")
    {'conv*': '2:4', 'head': 'weight'}
    """
    found: Granularity = text
    if "=" in text:
        pairs = [part.partition("=") for part in text.split(",")]
        found = {pattern: each for pattern, _, each in pairs}
    try:
        grouping.get(found)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return found


def resources(text: str) -> dict[str, Any]:
    """The type of a training's Ray resources; names that Ray does not know are custom.

    >>> resources("num_gpus=0.25,max_retries=5,fast=1")
    {'num_gpus': 0.25, 'max_retries': 5, 'resources': {'fast': 1.0}}
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"expected names with numbers, such as num_gpus=0.25,num_cpus=2; "
                f"received {text!r}"
            ) from error
        if name in ("max_retries", "max_calls"):
            found[name] = int(value)
        elif name in ("num_cpus", "num_gpus", "memory"):
            found[name] = value
        else:
            found.setdefault("resources", {})[name] = value
    return found
