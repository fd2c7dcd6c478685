"""The start of a command: refusals, TensorFlow's silence, torch's threads."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from keras_lottery.quiet import quiet

# Python puts "-m" there until it has found the module.
COMMANDS = {"keras-lottery", "find_ticket", "reproduce", "-m"}

OF_A_RUN = {"deploy", "report"}
"""The commands whose arguments are directories of searches; all their options take a
value."""


def refusal(arguments: Sequence[str]) -> str | None:
    """Why a command's RUN is no run, or None if this cannot be told without Keras.

    Args:
        arguments: the arguments of `keras-lottery`, beginning with the command.

    >>> print(refusal(["report", "no/such/run"]))
    Expected the directory of a search. Received: 'no/such/run', in which there is ...
    >>> refusal(["find", "--data", "digits"])
    """
    if not arguments or {"-h", "--help"} & {*arguments}:
        return None
    if arguments[0] == "prune":
        return _no_model(arguments[1:])
    if arguments[0] not in OF_A_RUN:
        return None
    runs = [
        text
        for before, text in pairwise(arguments)
        if not text.startswith("-") and (not before.startswith("-") or "=" in before)
    ]
    if arguments[0] == "deploy" and len(runs) != 1:
        return None  # The parser reports the error.
    wrong = (path for path in map(Path, runs) if not (path / "settings.json").is_file())
    return next(map(no_run, wrong), None)


def _no_model(arguments: Sequence[str]) -> str | None:
    """Why a model to prune cannot be read, if it is the first argument."""
    if not arguments or arguments[0].startswith("-"):
        return None
    path = Path(arguments[0])
    if path.suffix == ".keras" and path.is_file():
        return None
    wrong = (
        "There is no such file" if path.suffix == ".keras" else "It is no .keras file"
    )
    return (
        f"Expected a .keras file of a model. Received: '{path}'. {wrong}: write one "
        "with `model.save('model.keras')`."
    )


def no_run(path: Path) -> str:
    """The message about a path that is not the directory of a search."""
    if path.is_file():
        return (
            "Expected the directory of a search, with its tickets. Received: the file "
            f"'{path}'. A model is written by `kl.export.to_litert(model, path)`."
        )
    return (
        f"Expected the directory of a search. Received: '{path}', in which there is no "
        "settings.json of one. Name the directory that `keras-lottery find "
        "--directory` or `LotteryTicketSearch(directory=…)` wrote."
    )


@contextmanager
def starting() -> Iterator[None]:
    """Silences a command inside the block, and while Keras is imported afterwards.

    TensorFlow's C++ code writes to stderr whatever its settings are. To see its
    messages, for example about a GPU, set `TF_CPP_MIN_LOG_LEVEL=0`.
    """
    is_command = Path(sys.argv[0]).stem in COMMANDS
    is_module = ("-m", "keras_lottery") in pairwise(sys.orig_argv)
    by_name = Path(sys.argv[0]).stem == "keras-lottery" or is_module
    if is_command:
        # Torch's threads wait for each other in a loop, which on a busy machine takes
        # ten times as long as their work. Torch reads this setting at its import.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The error comes first, since importing Keras and TensorFlow takes many seconds.
    if is_command and by_name and (reason := refusal(sys.argv[1:])):
        print(f"keras-lottery: {reason}", file=sys.stderr)
        sys.exit(2)
    # Workers inherit this level, with which TensorFlow logs only errors.
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
    if not is_command or level != "2":
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = level
    with quiet():
        yield
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # TensorFlow looks for its devices now, in silence.
            tf.config.list_logical_devices()
