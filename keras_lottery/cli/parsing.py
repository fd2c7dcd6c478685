"""What the commands share: a parser, types of arguments, and how a run ends."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def run(parser: Parser, arguments: Sequence[str] | None) -> int:
    """Runs the command that was asked for.

    Returns:
        0, or the exit status of what went wrong, which is printed: 2 for wrong input,
        1 for what failed on the way, 130 if stopped.
    """
    options = parser.parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    formatwarning = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    try:
        options.function(options)
    except (ValueError, FileNotFoundError, ImportError) as error:
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
    """An error of the library in the words of the command line.

    >>> as_options("Choose another `directory`, or use `overwrite=True`.")
    'Choose another --directory, or use --overwrite.'
    """
    return text.replace("`directory`", "--directory").replace(
        "`overwrite=True`", "--overwrite"
    )


def at_least(least: int) -> Callable[[str], int]:
    """The type of whole numbers from `least` on."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number, at least {least}; got {text!r}"
            )
        return int(text)

    return number


def share(text: str) -> float:
    """The type of numbers between 0 and 1."""
    number = positive(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(
            f"expected a share above 0 and below 1; got {text!r}"
        )
    return number


def positive(text: str) -> float:
    """The type of numbers above 0."""
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0; got {text!r}")
    return number


def not_negative(text: str) -> float:
    """The type of numbers from 0 on."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, or 0 where it is allowed; got {text!r}"
        )
    return number


def list_of(option: str, choices: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of some of the `choices`, with commas between them, or `none`."""

    def read(text: str) -> list[str]:
        words = [] if text == "none" else text.split(",")
        for word in words:
            if word not in choices:
                raise argparse.ArgumentTypeError(
                    f"invalid choice: {word!r} (choose from {', '.join(choices)}, none)"
                )
        return words

    return read
