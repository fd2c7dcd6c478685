"""The start of a command: refusals, TensorFlow's silence, torch's threads."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from keras_lottery.quiet import quiet

# "-m" is what Python puts there until it has found the module.
COMMANDS = {"keras-lottery", "find_ticket", "reproduce", "-m"}

OF_A_RUN = {"deploy", "report"}
"""Commands whose arguments are directories of searches; their options have each a
value."""


def refusal(arguments: Sequence[str]) -> str | None:
    """Why a command's RUN is none, or None where that cannot be told at the door.

    Args:
        arguments: of `keras-lottery`, the command first.

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
        return None  # The parser says what is wrong.
    wrong = (path for path in map(Path, runs) if not (path / "settings.json").is_file())
    return next(map(no_run, wrong), None)


def _no_model(arguments: Sequence[str]) -> str | None:
    """Why a model to prune is none, if it is named first."""
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
    """What is said of a path that is not the directory of a search."""
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
    """Inside, and while Keras is imported after it, a command is silent.

    TensorFlow's C++ code writes to stderr whatever its settings say. To see what it
    has to say, of a GPU for example, set `TF_CPP_MIN_LOG_LEVEL=0`.
    """
    is_command = Path(sys.argv[0]).stem in COMMANDS
    is_module = ("-m", "keras_lottery") in pairwise(sys.orig_argv)
    by_name = Path(sys.argv[0]).stem == "keras-lottery" or is_module
    if is_command:
        # Torch's threads wait for each other in a loop, which on a busy machine takes
        # ten times as long as what they do. It reads this when it is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Keras, and TensorFlow with it, take many seconds to import.
    if is_command and by_name and (reason := refusal(sys.argv[1:])):
        print(f"keras-lottery: {reason}", file=sys.stderr)
        sys.exit(2)
    # Workers inherit both what was started and the level: that of errors.
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

            # Its devices are looked for now.
            tf.config.list_logical_devices()
