"""Linear interpolation between two trained nets, and the error barrier between them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.objective import Objective
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.gradients import in_batches
from keras_lottery.keras_bridge.layers import State, named_masks, walk
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.study.analysis.evaluation import (
    check_state,
    evaluate_states,
    judged,
)

if TYPE_CHECKING:
    import pandas as pd


def interpolate(
    model: keras.Model,
    state_a: State,
    state_b: State,
    data: Any,
    points: int = 30,
    statistics: Any = None,
    objective: str | Objective | None = None,
) -> "pd.DataFrame":
    """Measures loss and error along the line from one net to another.

    At α, all weights are w_a + α (w_b - w_a); at the ends, they equal those of the
    states to the bit. Variables that are not floats (states of random generators) keep
    the values of `state_a` until α = 1.

    Args:
        model: a compiled model, masked or not; it is left as it was.
        state_a, state_b: two of its states, such as those at the end of two trainings.
            Weights that the model's masks prune must be zero in both.
        data: (x, y), a `PyDataset` or a `tf.data.Dataset` to measure on.
        points: the number of values of α, including 0 and 1.
        statistics: inputs (an array) on which the statistics of `BatchNormalization`
            layers are estimated anew at every point between the ends, as means over
            batches in training mode. By default the statistics are interpolated like
            the weights.
        objective: same as in `LotteryTicketSearch`.

    Returns:
        A row for each point: `alpha`, `loss`, `accuracy` (or another metric, by its
        name) and `error`: 1 - accuracy, or the metric itself if lower is better.

    Raises:
        ValueError: if the model is not compiled or does not report the objective, a
            state is not the model's, or there are fewer than 2 points.

    Reference:
        Frankle et al., [Linear mode connectivity and the lottery ticket hypothesis](
        https://arxiv.org/abs/1912.05671), 2020, section 2.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("sgd", loss, metrics=["accuracy"])
    >>> from keras_lottery.keras_bridge.layers import get_state
    >>> a = get_state(model)
    >>> b = {name: -array for name, array in a.items()}
    >>> data = np.ones((4, 2), "float32"), np.zeros(4)
    >>> interpolate(model, a, b, data, points=3)["alpha"].tolist()
    [0.0, 0.5, 1.0]
    """
    import pandas as pd

    keras_checks.compiled("model", model)
    checks.count("points", points, 2)
    for argument, state in (("state_a", state_a), ("state_b", state_b)):
        check_state(argument, state, model)
        _check_pruned(argument, state, model)
    if statistics is not None:
        _check_statistics(model, statistics)
    goal = judged(model, data, objective)
    alphas = np.linspace(0, 1, points)

    def prepare(index: int) -> None:
        if statistics is not None and 0 < index < points - 1:
            estimate_statistics(model, statistics)

    measured = evaluate_states(
        model, _line(state_a, state_b, alphas), data, goal, prepare
    )
    losses, values = np.transpose(measured)
    if goal.direction == "max" and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            "Expected an `objective` from 0 to 1, or one of which less is better, to "
            f"make an error of. Received: objective={goal.name!r}, up to {values.max()}"
        )
    error = values if goal.direction == "min" else 1 - values
    return pd.DataFrame(
        {"alpha": alphas, "loss": losses, goal.metric: values, "error": error}
    )


def instability(
    model: keras.Model,
    state_a: State,
    state_b: State,
    data: Any,
    points: int = 30,
    statistics: Any = None,
    objective: str | Objective | None = None,
) -> float:
    """The error barrier between two nets: how unstable the training was to its noise.

    It is the highest error on the line between the two, minus the mean error at its
    ends: max_α E(α) - (E(0) + E(1)) / 2, at least 0. Nets that were trained from the
    same weights with different orders of the data are called stable below 0.02
    (`train_and_measure_instability` trains such pairs).

    The arguments and errors are the same as those of `interpolate`.

    Returns:
        The error barrier. For accuracies, 0.02 is two percentage points of error.

    Reference:
        Frankle et al., [Linear mode connectivity and the lottery ticket hypothesis](
        https://arxiv.org/abs/1912.05671), 2020, section 2 ("linear interpolation
        instability").
    """
    line = interpolate(model, state_a, state_b, data, points, statistics, objective)
    return barrier(line)


def barrier(line: "pd.DataFrame") -> float:
    """The error barrier in a table that `interpolate` returned."""
    error = line["error"].to_numpy()
    return float(error.max() - (error[0] + error[-1]) / 2)


def estimate_statistics(model: keras.Model, x: Any, batch_size: int = 256) -> None:
    """Estimates the statistics of a model's BatchNormalization layers anew, in place.

    They become the means over batches of the batch statistics in training mode.

    Args:
        model: a model.
        x: inputs: an array, or a structure of them.
        batch_size: examples in a batch.

    Raises:
        ValueError: if the model has no such layer.
    """
    normalisations = _check_statistics(model, x)
    momenta = [layer.momentum for layer in normalisations]
    try:
        for index, (batch, _) in enumerate(in_batches(model, x, (), batch_size)):
            for layer in normalisations:
                # This gives the mean over the batches so far; the first batch replaces
                # the old statistics.
                layer.momentum = index / (index + 1)
            model(batch, training=True)
    finally:
        for layer, momentum in zip(normalisations, momenta, strict=True):
            layer.momentum = momentum


def _check_statistics(model: keras.Model, x: Any) -> list[Any]:
    """A model's normalisations; raises ValueError if it has none, or x does not fit."""
    normalisations = [
        layer
        for _, layer in walk(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not normalisations:
        raise ValueError(
            f"Expected a model with BatchNormalization layers for `statistics`. "
            f"Received: model '{model.name}'. Leave `statistics` out."
        )
    leaves = keras.tree.flatten(x)
    if not leaves or not all(getattr(leaf, "shape", ()) for leaf in leaves):
        checks.refuse("statistics", "inputs: an array, or a structure of them", x)
    return normalisations


def _line(a: State, b: State, alphas: np.ndarray) -> Iterator[State]:
    for alpha in alphas:
        if alpha in (0, 1):
            yield b if alpha else a
        else:
            yield {name: _between(a[name], b[name], float(alpha)) for name in a}


def _between(a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    # In this form, the line between equal weights has only these weights.
    return a + (alpha * (b - a)).astype(a.dtype) if "float" in a.dtype.name else a


def _check_pruned(argument: str, state: State, model: keras.Model) -> None:
    for name, (mask, _) in named_masks(model).items():
        if np.any(np.asarray(state[name])[~read(mask)]):
            raise ValueError(
                f"Expected `{argument}` to be zero where the model is pruned. "
                f"Received: other weights in `{name}`. Pass a model without masks, as "
                "`strip_masks` returns it, or the state of a masked model, as "
                "`get_state` returns it."
            )
