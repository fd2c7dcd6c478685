"""Evaluates a model with other weights, and restores it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.data import first_batch
from keras_lottery.engines.evaluation import evaluate, evaluation_batch
from keras_lottery.engines.fits import part_of
from keras_lottery.engines.objective import Objective, named, resolve
from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.layers import (
    State,
    get_state,
    named_masks,
    named_variables,
    set_state,
)
from keras_lottery.keras_bridge.layers.state import read


@contextlib.contextmanager
def borrowed(model: keras.Model) -> Iterator[dict[str, np.ndarray]]:
    """Yields the model's state; restores all its variables at the end of the block."""
    state = get_state(model)
    masks = [mask for mask, _ in named_masks(model).values()]
    variables = [*named_variables(model).values(), *masks, *model.metrics_variables]
    values = [read(variable) for variable in variables]
    try:
        yield state
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def evaluate_states(
    model: keras.Model,
    states: Iterable[State],
    data: Any,
    objective: Objective,
    prepare: Callable[[int], None] = lambda index: None,
) -> list[tuple[float, float]]:
    """The loss and objective of a model in each of several states.

    Args:
        model: a compiled model, masked or not; it is left as it was. Its masks stay.
        states: states of all its variables.
        data: (x, y), (x, y, sample_weight), a `PyDataset` or `tf.data.Dataset`.
        objective: the objective that `judged` returned.
        prepare: called with the index of a state after the model has been set to it.

    Raises:
        ValueError: if a state is not the model's.
    """
    measured = []
    with borrowed(model):
        for index, state in enumerate(states):
            set_state(model, state)
            prepare(index)
            logs = evaluate(model, data)
            measured.append((float(logs["loss"]), float(logs[objective.metric])))
    return measured


def judged(
    model: keras.Model, data: Any, objective: str | Objective | None
) -> Objective:
    """Resolves an objective by evaluating one batch; the model is left as it was.

    Raises:
        ValueError: if the data do not fit the model, or it does not report the
            objective.
    """
    if objective is not None:
        named(objective)
    with borrowed(model):
        data = part_of("data", model, data)
        logs = evaluate(model, first_batch(data, evaluation_batch(model)))
        return resolve(objective, model, logs)


def check_state(argument: str, state: State, model: keras.Model) -> None:
    """Raises ValueError if a state does not fit the model or is not finite."""
    checks.state(argument, state)
    shapes = {name: tuple(v.shape) for name, v in named_variables(model).items()}
    given = {name: np.shape(array) for name, array in state.items()}
    for name, variable in named_variables(model).items():
        if "float" in variable.dtype and name in given:
            kind = np.asarray(state[name]).dtype
            if "float" not in kind.name:
                raise ValueError(
                    f"Expected `{argument}` of floats. Received: {kind} in {name!r}"
                )
    if given != shapes:
        others = sorted(
            name
            for name in given.keys() | shapes
            if given.get(name) != shapes.get(name)
        )
        raise ValueError(
            f"Expected `{argument}` to be a state of model '{model.name}', as "
            f"`get_state` returns it. Received: one that differs in {others[:5]}, "
            f"{len(others)} in all."
        )
    for name, array in state.items():
        if (
            "float" in np.asarray(array).dtype.name
            and not np.isfinite(np.asarray(array, "float64")).all()
        ):
            raise ValueError(
                f"Expected `{argument}` to be finite. Received: NaN or infinity in "
                f"{name!r}. Did the training diverge? Lower the learning rate."
            )
