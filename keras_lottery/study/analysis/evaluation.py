"""A model at other weights, and then as it was."""

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
    """Gives the model's state; afterwards all its variables are as they were."""
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
    """Loss and objective of a model at one state after another.

    Args:
        model: a compiled model, masked or not; it is left as it was. Its masks stay.
        states: of all its variables.
        data: (x, y), (x, y, sample_weight), a `PyDataset` or `tf.data.Dataset`.
        objective: what `judged` made of the user's.
        prepare: is called with a state's index once the model holds it.

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
    """The objective that is meant, by a batch of the data; the model is left as it was.

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
    """Raises ValueError if a state is not that of a model, or not finite."""
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
