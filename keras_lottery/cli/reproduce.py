"""`keras-lottery reproduce`, which is also `scripts/reproduce.py`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from keras_lottery.cli.parsing import Parser, add_verbose, directory
from keras_lottery.files import CorruptedFileError
from keras_lottery.papers import experiments
from keras_lottery.papers.experiments.reproduce import (
    SUMMARY,
    directory_of,
    measured_seconds,
)
from keras_lottery.tables import text_table

if TYPE_CHECKING:
    import pandas as pd

HELP = "run a paper's experiment, and compare it with the published figures"


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_reproduce)
    add = parser.add_argument
    add("name", nargs="?", help="name of the experiment; --list shows all")
    add(
        "--scale",
        default="cpu",
        choices=("smoke", "cpu", "paper"),
        help="smoke runs through in seconds and judges nothing, cpu takes minutes, "
        "paper has the paper's lengths; --list shows which an experiment has (default: "
        "%(default)s)",
    )
    add(
        "--directory",
        type=directory,
        metavar="DIR",
        help="where the run is stored (default: runs/reproduce/<name>_<scale>)",
    )
    add("--list", action="store_true", help="show all experiments and their cost")
    add_verbose(parser)


def _reproduce(options: argparse.Namespace) -> None:
    if options.list:
        print(listed())
        return
    if options.name is None:
        raise ValueError("The name of an experiment is missing. `--list` shows all.")
    experiment = experiments.get(options.name)
    directory = options.directory or directory_of(options.name, options.scale)
    verdicts = experiments.reproduce(
        experiment, options.scale, directory, options.verbose
    )
    if options.verbose:
        print(f"{experiment.title}\n{experiment.paper}\n")
        print(verdict_table(verdicts))
        print(f"\n{directory}: README.md, tables and figures")


def listed() -> str:
    """A line for each experiment: its name, its cost by scale, and its title.

    Where a run has ended in its usual directory, the cost is what it measured, too. If
    its summary is damaged, the line says so.
    """
    rows = []
    for name, experiment in experiments.EXPERIMENTS.items():
        costs = []
        for key, scale in experiment.scales.items():
            costs.append(f"{key}: {scale.cost}{_measured(directory_of(name, key))}")
        rows.append([name, f"{experiment.title} ({'; '.join(costs)})"])
    return text_table(rows)


def _measured(directory: Path) -> str:
    """What a run measured of its cost, for a line of `listed`."""
    try:
        seconds = measured_seconds(directory)
    except CorruptedFileError:
        return f", measured: unknown, '{directory / SUMMARY}' is damaged"
    return "" if seconds is None else f", measured: {_duration(seconds)}"


def _duration(seconds: float) -> str:
    """The time of trainings, one after another, in words.

    >>> _duration(90), _duration(5400)
    ('90 s of training', '90 minutes of training')
    """
    if seconds < 600:
        return f"{seconds:.0f} s of training"
    return f"{seconds / 60:.0f} minutes of training"


def verdict_table(verdicts: "pd.DataFrame") -> str:
    """Published, measured and verdict of each claim, for a terminal."""
    widths = {"claim": 44, "published": 22, "measured": 24, "verdict": 15}
    rows = verdicts[list(widths)].astype(str).to_numpy().tolist()
    return text_table(rows, list(widths), widths)
