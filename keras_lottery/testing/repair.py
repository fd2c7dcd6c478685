"""The rules that every repair follows."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.testing import example
from keras_lottery.testing.rules import copies, rule, same, shapes
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets import grouping as groupings
from keras_lottery.tickets import repair as repairs
from keras_lottery.tickets.allocation import Uniform
from keras_lottery.tickets.criteria import magnitude
from keras_lottery.tickets.grouping import Granularity, Grouped
from keras_lottery.tickets.repair import RepairLike


def check_repair(repair: RepairLike, granularity: Granularity = "weight") -> None:
    """Checks a repair on a small trained network that is pruned to a third.

    - It returns finite arrays with the names and shapes of the model's variables.
    - Pruned weights are zero.
    - The same snapshot gives the same repair.
    - It changes neither the masks nor the snapshot's arrays.

    Args:
        repair: a name, or a function `(snapshot, masks) -> weights`.
        granularity: what is pruned together, such as `"filter"` for a repair that works
            only for filters.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_repair("least_squares")
    >>> check_repair(lambda snapshot, masks: {"other": np.ones(3)})
    Traceback (most recent call last):
    AssertionError: Broken rule: a repair returns arrays of the names and shapes of...
    """
    mend = repairs.get(repair)
    snapshot = _snapshot(granularity)
    allocate = Grouped(Uniform(), snapshot.grouping)
    masks = allocate(magnitude(snapshot), snapshot.masks, 0.65)
    before = copies(snapshot.final), copies(masks)
    with seeded(1):
        made = mend(snapshot, masks)
    known = shapes(snapshot.final)
    rule(
        isinstance(made, Mapping) and shapes(made).items() <= known.items(),
        "a repair returns arrays of the names and shapes of the model's variables, "
        f"{known}",
        shapes(made) if isinstance(made, Mapping) else repr(made),
    )
    made = copies(made)
    for name, array in made.items():
        rule(bool(np.isfinite(array).all()), "weights are finite", f"others: `{name}`")
        if name in masks:
            left = np.count_nonzero(array[~masks[name]])
            rule(not left, "what the masks prune is zero", f"{left} more of `{name}`")
    after = copies(snapshot.final), copies(masks)
    rule(
        all(map(same, before, after)),
        "a repair changes neither the snapshot nor the masks",
        "other arrays in them afterwards",
    )
    with seeded(2):
        again = copies(mend(_snapshot(granularity), masks))
    rule(same(made, again), "the same snapshot has the same repair", "another one")


def _snapshot(granularity: Granularity) -> Snapshot:
    snapshot = example.snapshot()
    grouping = groupings.get(granularity).of(snapshot.model, snapshot.masks)
    return dataclasses.replace(snapshot, grouping=grouping)
