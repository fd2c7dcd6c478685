"""Baselines that train a pruned architecture from scratch."""

from dataclasses import dataclass

import keras

from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    redraw,
    set_state,
)
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.structured.costs import multiply_adds
from keras_lottery.structured.removal import compact


@dataclass(frozen=True)
class Baseline:
    """A smaller model, and how long to train it.

    Attributes:
        model: the smaller model with the weights to start from; compiled if the pruned
            model is.
        epochs: as many as the dense model's training had, or as many as cost the same.
    """

    model: keras.Model
    epochs: int


def scratch(
    model: keras.Model, initial: State, epochs: int, seed: int = 0
) -> dict[str, Baseline]:
    """Returns baselines, which train a pruned architecture from scratch.

    Args:
        model: a masked model, whose masks have pruned units and filters.
        initial: the state from which the model was first trained, see `get_state`.
        epochs: the number of epochs of that training.
        seed: the seed of the new weights.

    Returns:
        Three baselines, all of the model that `compact(model)` returns:

        - `"original"`: the initial weights of the units that are left, and as many
          epochs as the dense model had;
        - `"scratch_e"`: new weights from the smaller model's own initialisers, and as
          many epochs;
        - `"scratch_b"`: the same weights, and as many epochs as cost the same as the
          dense training, by `multiply_adds`.

    Raises:
        ValueError: if the model is not masked or is a subclassed model, or `initial` is
            the state of another model.

    Reference:
        Liu et al. 2019, "Rethinking the value of network pruning", section 3.

    Example:

    >>> import keras_lottery as kl
    >>> from keras_lottery.keras_bridge.layers import get_state
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> initial = get_state(model)
    >>> kl.prune(model, 0.5, granularity="filter")
    >>> {name: start.epochs for name, start in scratch(model, initial, 10).items()}
    {'original': 10, 'scratch_e': 10, 'scratch_b': 21}
    """
    if epochs < 1:
        raise ValueError(f"Expected at least 1 epoch. Received: epochs={epochs}")
    get_masks(model)
    small = compact(model)
    drawn = redraw(small, seed)
    own = get_state(model)
    try:
        set_state(model, initial)
        original = compact(model)
    finally:
        set_state(model, own)
    budget = epochs * multiply_adds(model) / multiply_adds(small)
    starts = {
        "original": Baseline(original, epochs),
        "scratch_e": Baseline(_with(small, drawn), epochs),
        "scratch_b": Baseline(_with(small, drawn), round(budget)),
    }
    return starts


def _with(model: keras.Model, state: State) -> keras.Model:
    """Returns a copy of the model with another state."""
    new = duplicate(model)
    compile_alike(model, new)
    set_state(new, state)
    return new
