"""`keras-lottery merge`, which makes one run from several."""

import argparse
from pathlib import Path

from keras_lottery.cli.parsing import Parser, directory
from keras_lottery.search import merge_runs

HELP = "make one run of several that hold other replicates of the same search"


def add_options(parser: Parser) -> None:
    """Adds the options of the command, and sets the function that it runs."""
    parser.set_defaults(function=_merge)
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="directories of runs whose settings differ in their replicates alone",
    )
    add(
        "--directory",
        required=True,
        type=directory,
        help="where the merged run goes: a new or empty directory",
    )


def _merge(options: argparse.Namespace) -> None:
    run = merge_runs(options.runs, options.directory)
    missing = run.missing()
    print(f"{run.directory}: {run.explain_missing(missing) if missing else 'complete'}")
