"""`keras-lottery benchmark`: measures files one beside the other."""

import argparse

from keras_lottery.cli.parsing import Parser, at_least, file, positive
from keras_lottery.files import write_json
from keras_lottery.papers import data
from keras_lottery.ship.deploy import benchmark, plot_files
from keras_lottery.ship.deploy.files import check_files
from keras_lottery.ship.deploy.show import as_records, as_text
from keras_lottery.study import plots

HELP = "measure .tflite files and SavedModels: bytes, latency, memory, accuracy"


def add_options(parser: Parser) -> None:
    """The options of the command, and what it runs."""
    parser.set_defaults(function=_benchmark)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=".tflite, or a SavedModel's directory")
    add("--data", help="measure the accuracy on the test part of: digits, a TFDS name, "
        "or an .npz file")  # fmt: skip
    add("--threads", type=at_least(1), default=1, help="of a file (%(default)s)")
    add("--no-xnnpack", action="store_true", help="without LiteRT's fast kernels")
    add("--rounds", type=at_least(1), default=10, help="over all files (%(default)s)")
    add("--seconds", type=positive, default=1.0, help="of timing a file (%(default)s)")
    add("--threshold", type=float, help="where a file with one output decides between "
        "two classes (0.5, of probabilities; 0 for logits)")  # fmt: skip
    add(
        "--plot",
        type=file(*plots.KINDS),
        metavar="FILE.png",
        help="size, latency, accuracy",
    )
    add(
        "--json",
        type=file(".json"),
        metavar="FILE.json",
        help="write the table there too",
    )


def _benchmark(options: argparse.Namespace) -> None:
    check_files(options.files)  # Before data are loaded.
    table = benchmark(
        options.files,
        data.load(options.data).test if options.data else None,
        threads=options.threads,
        xnnpack=not options.no_xnnpack,
        rounds=options.rounds,
        seconds=options.seconds,
        threshold=options.threshold,
    )
    print(as_text(table))
    if options.plot:
        plot_files(table, options.plot)
    if options.json:
        write_json(options.json, as_records(table))
