"""What every process that trains makes its engine of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lottery import engines
from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Engine, Training, Work
from keras_lottery.layers.convert import Prunable
from keras_lottery.search.replicates import build

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # XLA counts processors by it, on JAX.
    "NPROC": "1",
}
"""The environment of a worker, so that results do not depend on how many there are."""

Result = Training | FloatingPointError


@dataclass(frozen=True)
class Setup:
    """What every process makes its engine of.

    Args:
        source, prunable, seed: as of `replicates.build`.
        engine: name of the engine.
        data: what to train and judge on; `None` where they are sent apart.
        options: further arguments of the engine.
    """

    source: keras.Model | Callable[[], keras.Model]
    prunable: Prunable
    seed: int
    engine: str
    data: Data | None
    options: dict[str, Any]
    dtype_policy: Any = field(default_factory=keras.config.dtype_policy)

    def make(self, model: keras.Model | None = None) -> Engine:
        """The engine, of a model that was built before or of a new one."""
        assert self.data is not None
        if model is None:
            keras.config.set_dtype_policy(self.dtype_policy)
            model, _ = build(self.source, self.prunable, self.seed, 0)
        return engines.make(self.engine, model, self.data, **self.options)


_engines: dict[str, Engine] = {}


def train(key: str, load: Callable[[], Setup], work: Work) -> Result:
    """Trains a ticket in a worker, which keeps its engine for the next one.

    Args:
        key: names the search.
        load: gives its setup.
        work: the ticket, and how to train it.
    """
    if key not in _engines:
        _engines.clear()
        _engines[key] = load().make()
    try:
        return _engines[key].train(work.make(), work.seed, stop=work.stop)
    except FloatingPointError as error:
        return error
