"""Checks of a search's arguments."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_lottery import checks
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.tickets.repair import Repair
from keras_lottery.tickets.rewind import Rewind

CALLBACKS = "a list of callbacks of Keras"


def check_model(model: Any) -> None:
    """Raises ValueError unless it is a compiled model or a function that builds one."""
    if not callable(model) or isinstance(model, keras.Model):
        keras_checks.compiled("model", model)


def check_callbacks(callbacks: Any) -> None:
    """Raises ValueError unless these are Keras callbacks."""
    for callback in checks.sequence("callbacks", callbacks, CALLBACKS):
        checks.instance("callbacks", callback, keras.callbacks.Callback, CALLBACKS)


def check_repair(repair: Repair | None, rewind: Rewind) -> None:
    """Raises ValueError if a rewind would discard the repaired weights."""
    if repair and rewind.ticket is rewinds.from_rewind_point:
        checks.refuse(
            "repair",
            "`None` where tickets start from the rewind point: what is repaired "
            "are the weights at the end of training",
            repair,
            "Give rewind='learning_rate' or 'fine_tune', or leave it out.",
        )


def checkpoint_steps(
    checkpoint: int | str | None, steps_per_epoch: int, callbacks: Sequence[Any] = ()
) -> int:
    """The number of steps between two stored states of a training; 0 for none.

    >>> checkpoint_steps("2ep", 100)
    200

    Raises:
        ValueError: if the argument cannot be read, or there are callbacks, whose state
            cannot be stored.
    """
    if checkpoint is None:
        return 0
    every = rewinds.in_steps("checkpoint", checkpoint, steps_per_epoch, 1)
    if callbacks:
        expected = "`None` with callbacks, whose state is not stored"
        checks.refuse("checkpoint", expected, checkpoint)
    return every


def read_part(
    part: Sequence[int] | None, replicates: int, overwrite: bool
) -> list[int]:
    """The replicates that this process trains; by default, all of them.

    >>> read_part(range(2, 4), 10, False)
    [2, 3]

    Raises:
        ValueError: if a replicate does not exist, or if `overwrite` would remove the
            stored search that this process is to be a part of.
    """
    if part is None:
        return list(range(replicates))
    checks.sequence("part", part, "a list of replicates, such as [3]", 1)
    remedy = "`replicates` is how many the whole search has."
    asked = {checks.count("part", n, 0, replicates - 1, remedy=remedy) for n in part}
    if overwrite:
        remedy = "Remove the directory before the first part is searched."
        checks.refuse("overwrite", "False with a `part`", overwrite, remedy)
    return sorted(asked)


def reported(report_levels: Sequence[int] | None, count: int) -> list[int]:
    """The levels to report; by default, all of them.

    >>> reported(None, 2)
    [1, 2]

    Raises:
        ValueError: if a level does not exist, or the last one is missing.
    """
    levels = range(1, count + 1)
    if report_levels is None:
        return list(levels)
    checks.sequence("report_levels", report_levels, "a list of levels")
    asked = sorted(checks.count("report_levels", n) for n in report_levels)
    if not set(asked) <= set(levels) or count not in asked:
        raise ValueError(
            f"Expected `report_levels` to be among {list(levels)}, the last one with "
            "them: a schedule need not go beyond it. Received: "
            f"report_levels={report_levels}"
        )
    return asked
