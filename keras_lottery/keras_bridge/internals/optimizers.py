"""The state of an optimizer: its learning rate, its steps and its slots.

Everything here was seen on Keras 3.15.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops


def innermost(optimizer: Any) -> Any:
    """Returns the optimizer that makes the updates, inside one that scales losses."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def schedule_of(
    optimizer: Any,
) -> keras.optimizers.schedules.LearningRateSchedule | None:
    """Returns an optimizer's learning-rate schedule, or `None` for a constant rate.

    `Optimizer._learning_rate`, seen on Keras 3.15. The public `learning_rate` is the
    schedule's current value: a ticket could not start at a later step of the schedule.
    """
    rate = getattr(innermost(optimizer), "_learning_rate", None)
    schedules = keras.optimizers.schedules.LearningRateSchedule
    return rate if isinstance(rate, schedules) else None


def steps_done(optimizer: Any) -> int:
    """Returns an optimizer's number of steps, as learning-rate schedules count them.

    `Optimizer._iterations`, seen on Keras 3.15. A step is a batch, also if gradients
    are accumulated. The public `iterations` counts updates in that case, and masks
    would change too late.
    """
    return int(ops.convert_to_numpy(innermost(optimizer)._iterations))


def trained_variables(optimizer: Any) -> list[keras.Variable]:
    """Returns the variables that an optimizer was built for, in the order of its slots.

    `Optimizer._trainable_variables`, seen on Keras 3.15. No public name tells which
    slot belongs to which weight.
    """
    return list(optimizer._trainable_variables)


def undecayed(
    optimizer: Any, variables: Mapping[str, keras.Variable]
) -> list[tuple[list[str], str | None]]:
    """Returns what an optimizer excludes from weight decay, which no config contains.

    `Optimizer._exclude_from_weight_decay`, of keys by `Optimizer._var_key`, and
    `_exclude_from_weight_decay_pattern`, seen on Keras 3.15. Without them, weight decay
    would apply to all weights of a copy.

    Args:
        optimizer: one on which `exclude_from_weight_decay` may have been called.
        variables: the variables of its model, by name.

    Returns:
        For the optimizer, and for each optimizer that it consists of, the names of the
        variables and the pattern of names.
    """
    found = []
    for one in _parts(optimizer):
        keys: set[Any] = getattr(one, "_exclude_from_weight_decay", set())
        pattern = getattr(one, "_exclude_from_weight_decay_pattern", None)
        own = [name for name, each in variables.items() if one._var_key(each) in keys]
        found.append((own, pattern and _sorted(pattern.pattern)))
    return found


def _sorted(pattern: str) -> str:
    """Returns Keras's pattern in sorted order, as it is joined from a set of names."""
    return (
        pattern
        if set(pattern) & set("()[]\\")
        else "|".join(sorted(pattern.split("|")))
    )


def exclude_from_decay(
    optimizer: Any,
    excluded: list[tuple[list[str], str | None]],
    variables: Mapping[str, keras.Variable],
) -> None:
    """Excludes from weight decay what `undecayed` found; unknown names do not matter.

    Sets `Optimizer._exclude_from_weight_decay`, its pattern and its cache, seen on
    Keras 3.15: the public method rejects an optimizer that is built, such as that of a
    model that was loaded from a file.
    """
    for one, (names, pattern) in zip(_parts(optimizer), excluded, strict=True):
        own = {one._var_key(variables[n]) for n in names if n in variables}
        one._exclude_from_weight_decay = own
        one._exclude_from_weight_decay_pattern = pattern and re.compile(pattern)
        one._exclude_from_weight_decay_cache = {}


def _parts(optimizer: Any) -> list[Any]:
    """Returns an optimizer, and a MultiOptimizer's optimizers of groups of weights."""
    one = innermost(optimizer)
    return [one, *getattr(one, "optimizers", ())]


class Slot(NamedTuple):
    """A variable that an optimizer keeps for a weight, such as a momentum.

    Args:
        weight: the weight's variable.
        variable: the slot itself.
        start: the slot's initial value.
    """

    weight: keras.Variable
    variable: keras.Variable
    start: float


def slots(optimizer: Any) -> Iterator[Slot]:
    """Yields the slots of an optimizer.

    The slots of one kind are in a list, in the order of the weights, and
    `Optimizer._variables` lists the slots of all kinds: seen on Keras 3.15. Without
    them, momentum would move pruned weights again, and would move weights that share a
    value apart. `_accumulators` of Adagrad and Ftrl start at
    `initial_accumulator_value`, by which Ftrl divides, and all other slots start at
    zero.
    """
    optimizer = innermost(optimizer)
    # A MultiOptimizer has an optimizer for each group of weights.
    for one in getattr(optimizer, "optimizers", ()):
        yield from slots(one)
    if optimizer is None or not optimizer.built:
        return
    weights = trained_variables(optimizer)
    others = {id(optimizer._variables), id(optimizer._trainable_variables)}
    for name, kept in vars(optimizer).items():
        if isinstance(kept, dict):  # Muon of Keras 3.12 stores them by path.
            kept = [kept.get(weight.path) for weight in weights]
        is_list = isinstance(kept, list) and id(kept) not in others
        if is_list and len(kept) == len(weights):
            start = 0.0
            if name == "_accumulators":
                start = getattr(optimizer, "initial_accumulator_value", 0.0)
            for weight, slot in zip(weights, kept, strict=True):
                if isinstance(slot, keras.Variable):
                    yield Slot(weight, slot, start)


def warn_of_sparse_kernels(optimizer: Any) -> None:
    """Warns about an Adafactor that divides zero by zero where weights are pruned.

    Adafactor multiplies the mean squares of a row and of a column of gradients, which
    are `epsilon_1` if all gradients there are zero. The square of its default, 1e-30,
    is zero in float32. Seen on Keras 3.15, where losses became NaN in the first epoch.
    """
    optimizer = innermost(optimizer)
    if not isinstance(optimizer, keras.optimizers.Adafactor):
        return
    if np.float32(optimizer.epsilon_1) ** 2 == 0:
        warnings.warn(
            "Adafactor gives NaN where a row and a column of a kernel are pruned. "
            f"Received: epsilon_1={optimizer.epsilon_1}, whose square is zero in "
            "float32. Compile with keras.optimizers.Adafactor(epsilon_1=1e-16).",
            stacklevel=4,
        )


def forget_variable(optimizer: Any, variable: keras.Variable) -> None:
    """Removes a variable that was added to an optimizer.

    `Optimizer._untrack_variable`, seen on Keras 3.15. There is a public way to add a
    variable and none to remove it: variables that a callback adds would be saved with
    the model.
    """
    optimizer._untrack_variable(variable)


def postpone_averages(optimizer: Any) -> None:
    """Keeps `fit` from replacing weights by moving averages; `take_averages` does it.

    Overrides `Optimizer.finalize_variable_values`, as seen on Keras 3.15. `fit` calls
    it whenever it ends, and an engine that trains in several `fit`s would continue from
    the averages. `use_ema=False` does not help, because there would be no averages.
    """
    vars(optimizer)["finalize_variable_values"] = lambda variables: None


def take_averages(optimizer: Any, variables: list[keras.Variable]) -> None:
    """Replaces weights by their moving averages, if the optimizer keeps any."""
    optimizer = innermost(optimizer)
    type(optimizer).finalize_variable_values(optimizer, variables)
