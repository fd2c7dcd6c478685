"""One training outside of a search, done once."""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_lottery.engines import Engine
from keras_lottery.files import CorruptedFileError, digest, read_record, write_record
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.papers.models import Recipe
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.settings import check_same
from keras_lottery.tickets import Ticket

KIND = "reproduced training"


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Args:
        states: by step: the start, those asked for, and the end.
        metrics: as of `engines.Training`.
    """

    states: Mapping[int, State]
    metrics: Mapping[str, float]

    @property
    def final(self) -> State:
        """The state at the end."""
        return self.states[max(self.states)]


@dataclass(frozen=True)
class Training:
    """A training, and where it is kept. Arguments as of `Lab.train`."""

    path: Path
    replicate: int = 0
    order: int = 0
    step: int = 0
    checkpoints: Sequence[int] = ()

    def run(
        self,
        settings: Mapping[str, Any],
        engine: Callable[[], Engine],
        recipe: Recipe,
        start: State,
        masks: Masks,
    ) -> Trained:
        """Reads what was trained, or trains it.

        Args:
            settings: of the engine, as JSON.
            engine: makes it.
            recipe, start, masks: as of `Lab.train`.

        Raises:
            ValueError: if the file holds a training with other settings.
        """
        settings = {
            **settings,
            "seed": [self.replicate, self.order],
            "step": self.step,
            "checkpoints": list(self.checkpoints),
            "start": digest(start),
            "masks": digest(masks),
        }
        with contextlib.suppress(FileNotFoundError):
            try:
                return self._read(settings)
            except CorruptedFileError as error:
                warnings.warn(f"{error}. It is trained again.", stacklevel=2)
        ticket = Ticket(masks, start, self.step, recipe.steps - self.step)
        # Named as in a search, so that the first order is that of its dense network.
        order = f"order {self.order}" if self.order else "order"
        keep = _Keep(self.step, recipe.eval_freq, self.checkpoints)
        training = engine().train(
            ticket, derive_seed(0, self.replicate, order), stop=keep
        )
        states = {self.step: start, **keep.states, recipe.steps: training.final}
        write_record(
            self.path,
            {"kind": KIND, "settings": settings, "metrics": training.metrics},
            {str(step): state for step, state in states.items()},
        )
        return Trained(states, training.metrics)

    def _read(self, settings: Mapping[str, Any]) -> Trained:
        meta, states, _ = read_record(self.path, KIND)
        check_same(meta["settings"], settings, self.path)
        return Trained({int(k): v for k, v in states.items()}, meta["metrics"])


@dataclass
class _Keep:
    """Sees the state at each validation, keeps some, and never stops the training."""

    step: int
    frequency: int
    wanted: Sequence[int]
    states: dict[int, State] = field(default_factory=dict)

    def __call__(self, state: State) -> bool:
        self.step += self.frequency - self.step % self.frequency
        if self.step in self.wanted:
            self.states[self.step] = dict(state)
        return False
