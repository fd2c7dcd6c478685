"""`keras-lottery reproduce`, which is also `scripts/reproduce.py`."""

import _thread
import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_lottery.cli.parsing import Parser, add_verbose, directory, positive
from keras_lottery.files import CorruptedFileError
from keras_lottery.papers import experiments
from keras_lottery.papers.experiments import Experiment
from keras_lottery.papers.experiments.reproduce import (
    SUMMARY,
    check_scale,
    directory_of,
    measured_seconds,
)
from keras_lottery.tables import text_table

if TYPE_CHECKING:
    import pandas as pd

HELP = "run papers' experiments, and compare them with the published figures"


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_reproduce)
    add = parser.add_argument
    add("names", nargs="*", metavar="name", help="an experiment; --list shows all")
    add(
        "--all",
        action="store_true",
        help="run all experiments that have the scale, in the order of --list",
    )
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
        help="where the run of one experiment is stored (default: "
        "runs/reproduce/<name>_<scale>)",
    )
    add(
        "--hours",
        type=positive,
        help="stop after so many hours; run the same command again to continue",
    )
    add("--list", action="store_true", help="show all experiments and their cost")
    add_verbose(parser)


def _reproduce(options: argparse.Namespace) -> None:
    if options.list:
        print(listed())
        return
    with _no_longer_than(options.hours):
        chosen = _chosen(options)
        if len(chosen) == 1:
            _run(chosen[0], options)
        else:
            _run_all(chosen, options)


def _chosen(options: argparse.Namespace) -> list[Experiment]:
    """The experiments that were asked for, each once.

    Raises:
        ValueError: if there are none, or they do not go with the other options.
    """
    if options.all and options.names:
        raise ValueError("Name experiments or use `--all`, not both.")
    found = [experiments.get(name) for name in dict.fromkeys(options.names)]
    if options.all:
        every = experiments.EXPERIMENTS.values()
        found = [one for one in every if options.scale in one.scales]
    if not found:
        raise ValueError("The name of an experiment is missing. `--list` shows all.")
    for experiment in found:
        check_scale(experiment, options.scale)
    if len(found) > 1 and options.directory:
        raise ValueError("`--directory` is for one experiment. Leave it out.")
    return found


def _run_all(chosen: list[Experiment], options: argparse.Namespace) -> None:
    """Runs the experiments that have not ended yet, each whatever becomes of another.

    Raises:
        OSError: at the end, if some failed.
    """
    failed = []
    for experiment in chosen:
        place = directory_of(experiment.name, options.scale)
        try:
            if measured_seconds(place) is not None:
                print(f"{experiment.name}: finished before, see {place}")
                continue
            print(f"{experiment.name}:", flush=True)
            _run(experiment, options)
        # A night's other experiments are not to be lost by any fault of one.
        except Exception as error:
            print(f"{experiment.name}: {error}", file=sys.stderr, flush=True)
            failed.append(experiment.name)
    if failed:
        raise OSError(f"Not finished: {', '.join(failed)}. See above.")


def _run(experiment: Experiment, options: argparse.Namespace) -> None:
    place = options.directory or directory_of(experiment.name, options.scale)
    verdicts = experiments.reproduce(experiment, options.scale, place, options.verbose)
    if options.verbose:
        print(f"{experiment.title}\n{experiment.paper}\n")
        print(verdict_table(verdicts))
        print(f"\n{place}: README.md, tables and figures")


@contextlib.contextmanager
def _no_longer_than(hours: float | None) -> Iterator[None]:
    """After so many hours, what is inside ends in the same way as by Ctrl-C."""
    if hours is None:
        yield
        return
    seconds = min(3600 * hours, threading.TIMEOUT_MAX)
    timer = threading.Timer(seconds, _interrupt, [threading.get_ident()])
    timer.daemon = True
    # A shell starts what runs in the background so that it ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def _interrupt(thread: int) -> None:
    """Interrupts a thread, the main one, also where it waits for something."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main()


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
