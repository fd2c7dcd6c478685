"""What every process that trains makes its engine of."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lottery import engines
from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Engine, Training, Work
from keras_lottery.keras_bridge.layers.convert import Prunable
from keras_lottery.search.replicates import build

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # XLA counts processors by it, on JAX.
    "NPROC": "1",
}
"""The environment of a worker, so that results do not depend on how many there are."""

MAX_DEATHS = 3
"""So often may the worker of a training die before the search gives up."""

Result = Training | FloatingPointError


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker.

    Args:
        traceback: as text.
    """

    traceback: str


@dataclass(frozen=True)
class Setup:
    """What every process makes its engine of.

    Args:
        source, prunable, seed: same as `replicates.build`.
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
    floatx: str = field(default_factory=keras.config.floatx)
    image_data_format: str = field(default_factory=keras.config.image_data_format)

    def make(self, model: keras.Model | None = None) -> Engine:
        """The engine, of a model that was built before or, in a worker, of a new one.

        A worker does not choose again: it may see another amount of free memory.
        """
        assert self.data is not None
        if model is not None:
            return engines.make(self.engine, model, self.data, **self.options)
        keras.config.set_floatx(self.floatx)
        keras.config.set_image_data_format(self.image_data_format)
        keras.config.set_dtype_policy(self.dtype_policy)
        model, _ = build(self.source, self.prunable, self.seed, 0)
        options = {k: v for k, v in self.options.items() if k != "trainings"}
        return engines.ENGINES[self.engine](model, self.data, **options)


_engines: dict[str, Engine] = {}


def train(
    key: str, load: Callable[[], Setup], work: Work | None
) -> Result | Failure | None:
    """Trains a ticket in a worker, which keeps its engine for the next one.

    Args:
        key: names the search.
        load: gives its setup.
        work: the ticket, and how to train it; `None` only makes the engine.
    """
    try:
        if key not in _engines:
            _engines.clear()
            _engines[key] = load().make()
        if work is None:
            return None
        return _engines[key].train(
            work.make(), work.seed, stop=work.stop, checkpoints=work.checkpoints
        )
    except FloatingPointError as error:
        return error
    # Not every exception survives being sent; its text does.
    except Exception:
        return Failure(traceback.format_exc())
