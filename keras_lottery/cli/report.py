"""`keras-lottery report`."""

import argparse
from pathlib import Path

from keras_lottery.cli.parsing import Parser, directory, file
from keras_lottery.study.report import write_report

HELP = "write a run as one page of HTML"


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_report)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run's directory")
    add("--out", type=file(".html"), metavar="FILE", help="the page (RUN/report.html)")
    add(
        "--figures",
        type=directory,
        metavar="DIR",
        help="where to write the figures as .png and .svg, too",
    )


def _report(options: argparse.Namespace) -> None:
    print(write_report(options.run, options.out, options.figures))
