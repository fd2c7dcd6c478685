"""The trainings of a search, each done once: trained and stored, or read."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_lottery.engines.engine import Engine, Training
from keras_lottery.masks import Masks
from keras_lottery.progress import Progress
from keras_lottery.store import (
    CorruptedFileError,
    Store,
    Unit,
    read_record,
    write_record,
)
from keras_lottery.ticket import Ticket


@dataclass
class Trainings:
    """Trains what is not stored yet.

    Args:
        store: where results are kept.
        engine: how tickets are trained.
        progress: what the user sees.

    Attributes:
        rows: a row of the results' table for each training so far.
    """

    store: Store
    engine: Engine
    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)

    def train(
        self,
        unit: Unit,
        ticket: Ticket | Callable[[], Ticket],
        seed: int,
        keep: Sequence[str] = (),
    ) -> Training:
        """The training of a unit.

        Args:
            unit: which one.
            ticket: the ticket to train, or what makes it, which is not called if it was
                trained before.
            seed: seed of the order of the data.
            keep: which states of the training to store.
        """
        self.progress.begin(
            f"replicate {unit.replicate}, level {unit.level}: {unit.variant}"
        )
        path = self.store.training(unit)
        try:
            training, meta, _ = read_training(path)
        except FileNotFoundError:
            training, meta = self._train(unit, ticket, seed, keep)
        except CorruptedFileError as error:
            warnings.warn(f"{error}. This training is done again.", stacklevel=2)
            training, meta = self._train(unit, ticket, seed, keep)
        self.rows.append(row(meta))
        self.progress.finish()
        return training

    def _train(
        self,
        unit: Unit,
        ticket: Ticket | Callable[[], Ticket],
        seed: int,
        keep: Sequence[str],
    ) -> tuple[Training, dict[str, Any]]:
        if not isinstance(ticket, Ticket):
            ticket = ticket()
        try:
            training = self.engine.train(ticket, seed, self.progress.step)
        except FloatingPointError as error:
            raise FloatingPointError(f"In the training of {unit}: {error}") from error
        states = {name: getattr(training, name) for name in keep}
        meta = {
            "kind": "training",
            **unit._asdict(),
            "step": ticket.step,
            "steps": ticket.steps,
            "learning_rate": ticket.learning_rate,
            "sparsity": ticket.masks.sparsity,
            "metrics": training.metrics,
            "curve": training.curve,
        }
        write_record(
            self.store.training(unit), meta, states, ticket.masks if keep else None
        )
        return training, meta


def row(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A training's row in the table of results."""
    derived = {"density": 1 - meta["sparsity"], "start_step": meta["step"]}
    return {**meta, **meta["metrics"], **derived}


def read_training(path: Any) -> tuple[Training, dict[str, Any], Masks | None]:
    """A stored training, what else is known of it, and its masks if they were kept.

    Raises:
        FileNotFoundError: if it was not trained.
        CorruptedFileError: if the file is damaged.
    """
    meta, states, masks = read_record(path, "training")
    training = Training(
        states.get("final", {}),
        states.get("rewind_point", {}),
        meta["curve"],
        meta["metrics"],
    )
    return training, meta, masks
