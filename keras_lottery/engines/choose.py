"""Chooses the engine that trains the tickets."""

from typing import Any

import keras

from keras_lottery import checks
from keras_lottery.engines import fused
from keras_lottery.engines.convolutions import convolves
from keras_lottery.engines.data import Data
from keras_lottery.engines.engine import Engine
from keras_lottery.engines.fit import FitEngine
from keras_lottery.engines.fits import check_fits
from keras_lottery.engines.fused import FusedEngine
from keras_lottery.engines.vectorized import VectorizedEngine
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.internals.optimizers import innermost

ENGINES: dict[str, type[Engine]] = {
    "fit": FitEngine,
    "fused": FusedEngine,
    "vectorized": VectorizedEngine,
}
# Compiling takes seconds, but saves only milliseconds in a step of a small network.
WORTH_COMPILING = 2000
# A larger network keeps an accelerator busy on its own.
SMALL = 10_000_000


def make(
    name: str,
    model: keras.Model,
    data: Data,
    steps: int,
    *,
    trainings: int = 1,
    checkpoint: int = 0,
    **arguments: Any,
) -> Engine:
    """Makes an engine by name.

    Args:
        name: `"fit"`: `model.fit`, which trains everything; `"fused"`: many steps in
            one compiled loop, with the data on the device; `"vectorized"`: many tickets
            in one program, on JAX; `"auto"`: the engine that is expected to be fastest.
            If an engine cannot handle the model or the data, a simpler one is made, and
            a warning says why.
        model, data, steps, arguments: same as `Engine`.
        trainings: how many trainings the engine will do; only `"auto"` uses it.
        checkpoint: the number of steps after which trainings store their state, 0 for
            never. The vectorized engine cannot do so.

    Returns:
        The engine; its `name` says which one was chosen. That name and the same
        arguments give the same engine again.

    Raises:
        ValueError: if there is no such engine, it cannot do what is asked for, or the
            data do not fit the model; also same as `Engine`.
    """
    check_engine(name)
    check_fits(model, data)
    obstacle = None if name == "fit" else fused.obstacle(model, data, **arguments)
    if name == "auto":
        name = "fit" if obstacle else _fastest(model, steps * trainings, checkpoint)
    elif obstacle:
        fused.fall_back(name, "fit", obstacle)
        name = "fit"
    elif name == "vectorized" and (reason := _not_stacked(model)):
        fused.fall_back(name, "fused", reason)
        name = "fused"
    if name == "vectorized" and checkpoint:
        remedy = "Use engine='fused' or 'fit', or leave it out."
        form = "None with engine='vectorized', which trains many tickets as one"
        checks.refuse("checkpoint", form, checkpoint, remedy)
    return ENGINES[name](model, data, steps, **arguments)


def check_engine(name: str) -> None:
    """Raises ValueError if there is no such engine."""
    checks.choice("engine", name, ["auto", *ENGINES])


def _fastest(model: keras.Model, steps: int, checkpoint: int) -> str:
    """The fastest engine for a number of steps, if the fused engine can train."""
    if backends.current().on_accelerator():
        small = model.count_params() < SMALL and not _not_stacked(model)
        return "vectorized" if small and not checkpoint else "fused"
    return "fit" if steps < WORTH_COMPILING else "fused"


def _not_stacked(model: keras.Model) -> str | None:
    """Why the vectorized engine cannot train a model, or None."""
    if keras.backend.backend() != "jax":
        return f"the backend is {keras.backend.backend()}"
    if innermost(model.optimizer).use_ema:
        return "the optimizer keeps moving averages"
    if convolves(model) and not backends.current().on_accelerator():
        return "stacked convolutions are slow on processors"
    return None
