"""`keras-lottery report`, which shows one run as a page, or several side by side."""

import argparse
from pathlib import Path

from keras_lottery.cli.parsing import Parser, directory, file
from keras_lottery.study.report import compare_runs, write_report

HELP = "write a run as one page of HTML, or compare several"


def add_options(parser: Parser) -> None:
    """Adds the options of the command, and sets the function that it runs."""
    parser.set_defaults(function=_report)
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="the directory of a run, as left by `find`; several are compared",
    )
    add(
        "--out",
        type=file(".html"),
        metavar="FILE",
        help="the page to write (default: RUN/report.html, or comparison.html for "
        "several runs)",
    )
    add(
        "--figures",
        type=directory,
        metavar="DIR",
        help="also write the figures into this folder, as .png and .svg",
    )


def _report(options: argparse.Namespace) -> None:
    if len(options.runs) == 1:
        print(write_report(options.runs[0], options.out, options.figures))
    else:
        out = options.out or "comparison.html"
        print(compare_runs(options.runs, out, options.figures))
