"""Tickets and snapshots: what one trains, and what training it gives.

A ticket is masks and the weights, and the step of the schedule, to start from.
Training it gives a snapshot: initial, rewind-point and final weights. Pruning a
snapshot gives masks; rewinding it gives the next ticket.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_lottery import architecture, store
from keras_lottery.gradients import gradients
from keras_lottery.layers import State, set_state
from keras_lottery.masks import Masks


@dataclass(frozen=True)
class Ticket:
    """Masks, and where training starts from.

    Args:
        masks: the weights that are left.
        weights: the state of all variables to start from.
        step: position in the training that the ticket starts at: in the data's order
            and in the learning rate's schedule.
        steps: how many steps to train.
        learning_rate: a constant rate instead of the schedule's; `None` for the
            schedule's.
        trained: the state after training, where it was trained.
        architecture: the masked model, as Keras serialises it.
        card: where the ticket comes from and how well it did.
    """

    masks: Masks
    weights: State
    step: int = 0
    steps: int = 0
    learning_rate: float | None = None
    trained: State | None = field(default=None, repr=False)
    architecture: str | None = field(default=None, repr=False)
    card: Mapping[str, Any] = field(default_factory=dict)

    def initial_model(self) -> keras.Model:
        """The masked model with the weights that training starts from."""
        return self._model(self.weights)

    def trained_model(self) -> keras.Model:
        """The masked model with the weights at the end of training.

        Raises:
            ValueError: if the ticket was not trained.
        """
        if self.trained is None:
            raise ValueError("This ticket was not trained. Train its `initial_model()`")
        return self._model(self.trained)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the ticket to one file, which `load_ticket` reads.

        Raises:
            ValueError: if `path` does not end in `.ticket`.
            OSError: if the file cannot be written; an older file is then left as it is.
        """
        _check_suffix(path)
        meta = {
            "kind": "ticket",
            "step": self.step,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "architecture": self.architecture,
            "card": dict(self.card),
            "is_trained": self.trained is not None,
        }
        states = {"weights": self.weights, "trained": self.trained or {}}
        store.write_record(path, meta, states, self.masks)

    def _model(self, state: State) -> keras.Model:
        if self.architecture is None:
            raise ValueError("This ticket has no architecture to build a model of")
        model = architecture.from_text(self.architecture)
        set_state(model, state, self.masks)
        return model


def load_ticket(path: str | os.PathLike) -> Ticket:
    """Reads a ticket that `Ticket.save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if the file is not a whole ticket.
    """
    meta, states, masks = store.read_record(path, kind="ticket")
    assert masks is not None
    return Ticket(
        masks,
        states["weights"],
        meta["step"],
        meta["steps"],
        meta["learning_rate"],
        states["trained"] if meta["is_trained"] else None,
        meta["architecture"],
        meta["card"],
    )


@dataclass(frozen=True)
class Snapshot:
    """What is known once a ticket is trained: all that a criterion may look at.

    Args:
        masks: the ticket's masks.
        final: the state of all variables now, by name; `final[name]` of a name in
            `masks` is a weight.
        initial: the state before the dense network's training.
        rewind_point: the dense network's state at the rewind point.
        rng: random numbers for this level of this replicate.
        model: the masked model, its variables holding `final`.
        data: training data (x, y), arrays.
    """

    masks: Masks
    final: State
    initial: State
    rewind_point: State
    rng: np.random.Generator
    model: keras.Model
    data: tuple[Any, Any] | None = None

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradient of the model's loss on `data`, for pruned weights as well.

        Returns:
            Mapping of each name in `masks` to an array of the weight's shape.

        Raises:
            ValueError: if there are no data, or the model is not compiled.
        """
        if self.data is None:
            raise ValueError(
                "This criterion needs training data. "
                "Pass `data=(x, y)` to `prune`, or use it in a search over arrays."
            )
        return {
            name: gradient
            for name, gradient in gradients(self.model, *self.data).items()
            if name in self.masks
        }


def _check_suffix(path: str | os.PathLike) -> None:
    if not os.fspath(path).endswith(".ticket"):
        raise ValueError(
            "Expected a path that ends in '.ticket'. "
            f"Received: path={os.fspath(path)!r}"
        )
