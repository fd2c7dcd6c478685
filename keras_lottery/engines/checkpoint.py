"""Stores the state of an unfinished training, so that it can be resumed."""

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery.files import CorruptedFileError, digest, read_record, write_record
from keras_lottery.keras_bridge.layers import State, get_state
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    from keras_lottery.engines.record import TrainingRecord

KIND = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """Where a training's state is stored, and how often.

    The state consists of the variables of the model (including the seeds of its random
    layers) and of its optimizer, and of the training's record so far. The step
    determines the position in the data. A resumed training therefore gives bit for bit
    the same results as an uninterrupted one.

    Args:
        path: the file.
        every: the number of steps from one checkpoint to the next.
    """

    path: Path
    every: int

    def write(
        self, model: keras.Model, ticket: Ticket, seed: int, record: "TrainingRecord"
    ) -> None:
        """Stores the state of a training.

        Args:
            model: the model that is trained.
            ticket: the ticket that is trained.
            seed: the seed of the order of the data.
            record: the training's record so far.
        """
        get_state(model)  # On JAX, this brings the variables up to date.
        states = {
            "model": _values(model.variables),
            "optimizer": _values(model.optimizer.variables),
            "best": record.best_state,
            "rewind_point": record.rewind_point,
            **{f"step_{step}": s for step, s in record.passed.items()},
        }
        meta = {
            "kind": KIND,
            "training": _identity(ticket, seed),
            "step": record.step,
            "validated": record.validated,
            "best": record.best,
            "curve": record.curve,
            "seconds": record.seconds,
            "trained": record.trained_seconds,
            "passed": list(record.passed),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_record(self.path, meta, states)

    def restore(
        self, model: keras.Model, ticket: Ticket, seed: int, record: "TrainingRecord"
    ) -> int:
        """Restores the stored state, if there is one; returns the step to resume at.

        The arguments are the same as those of `write`. The model and its optimizer must
        already be set to the ticket.
        """
        try:
            meta, states, _ = read_record(self.path, KIND)
        except FileNotFoundError:
            return ticket.step
        except CorruptedFileError as error:
            message = f"{error}. This training starts again from the beginning."
            warnings.warn(message, stacklevel=3)
            return ticket.step
        if meta["training"] != _identity(ticket, seed):
            return ticket.step
        _assign(model.variables, states["model"])
        _assign(model.optimizer.variables, states["optimizer"])
        record.step, record.validated = meta["step"], meta["validated"]
        record.best, record.curve = meta["best"], meta["curve"]
        record.seconds, record.trained_seconds = meta["seconds"], meta["trained"]
        # A group without arrays is not in the file.
        record.best_state = states.get("best", {})
        record.rewind_point = states.get("rewind_point", {})
        record.passed = {n: states[f"step_{n}"] for n in meta["passed"]}
        return record.step

    def remove(self) -> None:
        """Removes the file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def _identity(ticket: Ticket, seed: int) -> dict[str, Any]:
    """The facts by which a stored state is recognised as that of the same training."""
    return {
        "weights": digest(ticket.weights),
        "masks": digest(ticket.masks),
        "step": ticket.step,
        "steps": ticket.steps,
        "learning_rate": ticket.learning_rate,
        "seed": seed,
        "backend": keras.backend.backend(),
    }


def _values(variables: list[keras.Variable]) -> State:
    """The raw values of variables, including pruned weights, by position."""
    return {str(i): read(variable) for i, variable in enumerate(variables)}


def _assign(variables: list[keras.Variable], values: Mapping[str, np.ndarray]) -> None:
    for i, variable in enumerate(variables):
        variable.assign(values[str(i)])
