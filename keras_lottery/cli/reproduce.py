"""`keras-lottery reproduce`, also `scripts/reproduce.py`, which runs experiments."""

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
    """Adds the options of the command, and sets the function that it runs."""
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
    """The experiments that were requested, each once.

    Raises:
        ValueError: if there are none, or they do not fit the other options.
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
        raise ValueError(
            f"`--directory` is for one experiment. Received: {len(found)} experiments. "
            "Leave it out."
        )
    return found


def _run_all(chosen: list[Experiment], options: argparse.Namespace) -> None:
    """Runs the experiments that have not ended yet, even if others of them fail.

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
        # No failure of one experiment may stop the others, which may run overnight.
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
    """Ends the block after some hours, in the same way as by Ctrl-C."""
    if hours is None:
        yield
        return
    seconds = min(3600 * hours, threading.TIMEOUT_MAX)
    timer = threading.Timer(seconds, _interrupt, [threading.get_ident()])
    timer.daemon = True
    # A shell starts background processes so that they ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def _interrupt(thread: int) -> None:
    """Interrupts the main thread, even while it waits for something."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main()


def listed() -> str:
    """A line for each experiment: its name, its cost by scale, and its title.

    If a run has ended in its usual directory, the line also has the measured cost. If
    the run's summary is damaged, the line says so.
    """
    rows = []
    for name, experiment in experiments.EXPERIMENTS.items():
        costs = []
        for key, scale in experiment.scales.items():
            costs.append(f"{key}: {scale.cost}{_measured(directory_of(name, key))}")
        rows.append([name, f"{experiment.title} ({'; '.join(costs)})"])
    return text_table(rows)


def _measured(directory: Path) -> str:
    """The cost that a run measured, for a line of `listed`."""
    try:
        seconds = measured_seconds(directory)
    except CorruptedFileError:
        return f", measured: unknown, '{directory / SUMMARY}' is damaged"
    return "" if seconds is None else f", measured: {_duration(seconds)}"


def _duration(seconds: float) -> str:
    """A duration in words, for trainings that run one after another.

    >>> _duration(90), _duration(5400)
    ('90 s of training', '90 minutes of training')
    """
    if seconds < 600:
        return f"{seconds:.0f} s of training"
    return f"{seconds / 60:.0f} minutes of training"


def verdict_table(verdicts: "pd.DataFrame") -> str:
    """A table of each claim's published and measured value and verdict, as text."""
    widths = {"claim": 44, "published": 22, "measured": 24, "verdict": 15}
    rows = verdicts[list(widths)].astype(str).to_numpy().tolist()
    return text_table(rows, list(widths), widths)
