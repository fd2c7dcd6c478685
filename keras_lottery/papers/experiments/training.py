"""Trainings of an experiment outside a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_lottery.files import digest
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.papers.models import Recipe
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.store import TrainingId
from keras_lottery.search.tasks import StoredTask
from keras_lottery.tickets import Ticket


@dataclass(frozen=True, kw_only=True)
class Start:
    """The start of a training, and the states to keep.

    Args:
        weights: the weights to start from; by default the replicate's initial weights,
            which are the same as in its searches.
        masks: the masks; by default, nothing is pruned.
        step: the step that the training starts at.
        checkpoints: steps whose states are kept, multiples of the recipe's
            `eval_freq`. The states of the start and the end are always kept.
        replicate: chooses the initial weights and the order of the data.
        order: chooses another order of the data.
    """

    weights: State | None = None
    masks: Masks | None = None
    step: int = 0
    checkpoints: Sequence[int] = ()
    replicate: int = 0
    order: int = 0

    def task(
        self, label: str, recipe: Recipe, model: keras.Model, initial: State
    ) -> StoredTask:
        """The task of training a model with these initial weights, under a label."""
        # The first order has the same name, and so is the same, as that of the dense
        # network in a search.
        order = f"order {self.order}" if self.order else "order"
        ticket = Ticket(
            self.masks or get_masks(model),
            self.weights or initial,
            self.step,
            recipe.steps - self.step,
        )
        return StoredTask(
            which=TrainingId(self.replicate, 0, label, self.order),
            ticket=ticket,
            seed=derive_seed(0, self.replicate, order),
            keep=("start", "final"),
            keep_at=self.checkpoints,
        )


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Args:
        states: by step: the start, the checkpoints, and the end.
        metrics: see `engines.Training`.
    """

    states: Mapping[int, State]
    metrics: Mapping[str, float]

    @property
    def final(self) -> State:
        """The state at the end."""
        return self.states[max(self.states)]


def describe_task(task: StoredTask) -> dict[str, Any]:
    """All that determines the result of a training, as JSON."""
    assert isinstance(task.ticket, Ticket)
    return {
        "seed": task.seed,
        "step": task.ticket.step,
        "steps": task.ticket.steps,
        "checkpoints": list(task.keep_at),
        "start": digest(task.ticket.weights),
        "masks": digest(task.ticket.masks),
    }
