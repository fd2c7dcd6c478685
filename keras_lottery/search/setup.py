"""The description from which every process builds its engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lottery import engines
from keras_lottery.engines.compacted import Compact
from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.objective import Objective
from keras_lottery.keras_bridge.internals.optimizers import (
    exclude_from_decay,
    undecayed,
)
from keras_lottery.keras_bridge.layers.convert import Prunable
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.search.replicates import build


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an engine trains.

    Args:
        steps, rewind_step, eval_freq, callbacks, class_weight, objective, compact:
            same as in `Engine`.
        trainings, checkpoint: same as in `engines.make`, for the choice of the engine.
    """

    steps: int
    rewind_step: int = 0
    eval_freq: int | str = "epoch"
    callbacks: Sequence[keras.callbacks.Callback] = ()
    class_weight: dict[int, float] | None = None
    objective: str | Objective | None = None
    compact: Compact = False
    trainings: int = 1
    checkpoint: int = 0


@dataclass(frozen=True)
class Setup:
    """Describes the engine that every process builds.

    Args:
        source, prunable, seed: same as in `replicates.build`.
        engine: name of the engine.
        data: the training, validation and test data; `None` if they are sent
            separately.
        options: how the engine trains.
    """

    source: keras.Model | Callable[[], keras.Model]
    prunable: Prunable
    seed: int
    engine: str
    data: Data | None
    options: Options
    dtype_policy: Any = field(default_factory=keras.config.dtype_policy)
    floatx: str = field(default_factory=keras.config.floatx)
    image_data_format: str = field(default_factory=keras.config.image_data_format)

    def __getstate__(self) -> dict[str, Any]:
        """Adds what pickling loses: the weights that the optimizer does not decay."""
        excluded = None
        if isinstance(self.source, keras.Model) and self.source.optimizer is not None:
            excluded = undecayed(self.source.optimizer, named_variables(self.source))
        return {**vars(self), "excluded": excluded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        excluded, source = state.pop("excluded"), state["source"]
        if excluded is not None:
            exclude_from_decay(source.optimizer, excluded, named_variables(source))
        vars(self).update(state)

    def make(self, model: keras.Model) -> Engine:
        """Builds the engine of the process that begins, for its model."""
        assert self.data is not None
        return engines.make(self.engine, model, self.data, **vars(self.options))

    def make_in_worker(self) -> Engine:
        """Builds the engine of another process, for a model of its own.

        The engine is not chosen again, since a worker may see another amount of free
        memory.
        """
        assert self.data is not None
        keras.config.set_floatx(self.floatx)
        keras.config.set_image_data_format(self.image_data_format)
        keras.config.set_dtype_policy(self.dtype_policy)
        model, _ = build(self.source, self.prunable, self.seed, 0)
        chosen = ("trainings", "checkpoint")
        options = {k: v for k, v in vars(self.options).items() if k not in chosen}
        return engines.ENGINES[self.engine](model, self.data, **options)
