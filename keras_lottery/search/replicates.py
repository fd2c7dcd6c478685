"""The weights that the replicates of a search start from."""

import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.files import CorruptedFileError, write_sealed
from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.keras_bridge.layers import (
    State,
    get_state,
    mask_model,
    redraw,
)
from keras_lottery.keras_bridge.layers.convert import Prunable
from keras_lottery.search.records import Records
from keras_lottery.search.settings import merge
from keras_lottery.tickets.carry_over import matching

Pretrained = bool | str | Iterable[str]


def derive_seed(
    seed: int, replicate: int, purpose: str, level: int = 0, trial: int = 0
) -> int:
    """A separate seed for each purpose in a search that needs random numbers."""
    entropy = [seed, replicate, level, trial, zlib.crc32(purpose.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def build(
    source: keras.Model | Callable[[], keras.Model],
    prunable: Prunable,
    seed: int,
    replicate: int,
) -> tuple[keras.Model, State]:
    """Builds the masked model, and the initial weights of a replicate.

    Args:
        source: a compiled model, whose weights replicate 0 keeps, or a function that
            builds one.
        prunable: same as in `mask_model`.
        seed: the search's seed.
        replicate: the number of the replicate.

    Raises:
        ValueError: if the model is not compiled, or cannot be masked.
    """
    drawn = derive_seed(seed, replicate, "initial")
    if isinstance(source, keras.Model):
        model = mask_model(_compiled(source), prunable)
        return model, redraw(model, drawn) if replicate else get_state(model)
    with seeded(drawn):
        model = mask_model(_compiled(source()), prunable)
    return model, get_state(model)


def read_pretrained(pretrained: Pretrained) -> bool | list[str]:
    """Which layers are pre-trained: all, none, or those that match names and patterns.

    Raises:
        ValueError: if the argument is none of these.
    """
    if isinstance(pretrained, bool):
        return pretrained
    given = [pretrained] if isinstance(pretrained, str) else pretrained
    form = "True, or names or patterns of layers, at least one, such as ['encoder*']"
    if isinstance(given, Mapping):
        checks.refuse("pretrained", form, pretrained)
    found = checks.names("pretrained", given, form)
    if not found:
        checks.refuse("pretrained", form, pretrained)
    return found


def trained_before(
    model: keras.Model, state: State, pretrained: Pretrained
) -> dict[str, np.ndarray]:
    """The pre-trained weights of a state, from which every replicate starts.

    Args:
        model: the masked model.
        state: the initial weights of replicate 0.
        pretrained: same as in `LotteryTicketSearch`.

    Raises:
        ValueError: if a pattern matches no layer.
    """
    if pretrained is False:
        return {}
    # Each replicate has its own states of random generators.
    weights = {n: a for n, a in state.items() if "float" in a.dtype.name}
    if pretrained is True:
        return weights
    chosen = matching("pretrained", model, pretrained)
    return {n: a for n, a in weights.items() if n.rpartition("/")[0] in chosen}


def stored_weights(records: Records, replicate: int, is_first: bool) -> State | None:
    """A replicate's stored initial weights, or None if they are still to be drawn.

    Warns if the given model has other weights.

    Args:
        records: where they are kept.
        replicate: the number of the replicate.
        is_first: whether replicate 0 would start from the weights that the model had.

    Raises:
        CorruptedFileError: if they are lost and cannot be drawn again.
    """
    try:
        found = records.initial(replicate)
    except FileNotFoundError as error:
        begun = any(which.replicate == 0 for which in records.store.training_ids())
        if is_first or replicate or not begun:
            return None
        raise CorruptedFileError(
            f"'{records.store.initial(0)}' is gone, which the trainings of replicate 0 "
            "began with, and the model has other weights now. Restore the file, give "
            "the model that the search began with, or choose another directory."
        ) from error
    except CorruptedFileError as error:
        if not is_first and not replicate:
            raise
        warnings.warn(f"{error}. It is made again.", stacklevel=2)
        return None
    if not is_first and not replicate:
        warnings.warn(
            f"The search in '{records.store.directory}' began with other "
            "weights than the model has now: it goes on with its own. Choose another "
            "directory to search from the model's.",
            stacklevel=4,
        )
    return found


def begin(
    records: Records,
    settings: dict[str, Any],
    first: State,
    draw: Callable[[State, int], State],
    replicates: Iterable[int],
    overwrite: bool,
) -> dict[int, State]:
    """Stores the settings of a study, and the initial weights of its replicates.

    No other process may do so at the same time, see `Site.settling`.

    Args:
        records: where they are kept.
        settings: as JSON.
        first: the weights of replicate 0.
        draw: `(weights of replicate 0, replicate) -> weights` of another one.
        replicates: the replicates to begin.
        overwrite: whether to remove what is stored instead of continuing it.

    Returns:
        The initial weights of each of these replicates: the stored ones, if any.

    Raises:
        ValueError: if other trainings are stored, or from `draw`. Nothing is written or
            removed then.
    """
    store, asked = records.store, list(replicates)
    # The others may share weights with the first.
    begun = sorted({0, *asked})
    starts: dict[int, State] = {}
    if not overwrite:
        same = settings["initial"]
        settings = merge(store, settings)
        for replicate in begun:
            is_first = settings["initial"] == same
            if found := stored_weights(records, replicate, is_first):
                starts[replicate] = found
    first = starts.get(0, first)
    new = {r: draw(first, r) if r else first for r in begun if r not in starts}
    if overwrite:
        store.clear()
    store.clean()
    write_sealed(store.settings, settings)
    for replicate, weights in new.items():
        meta = {"kind": "initial", "replicate": replicate}
        records.write(store.initial(replicate), meta, {"weights": weights})
    return {replicate: (starts | new)[replicate] for replicate in asked}


def draw(
    source: keras.Model | Callable[[], keras.Model],
    prunable: Prunable,
    seed: int,
    pretrained: Pretrained,
    first: State,
    replicate: int,
) -> State:
    """Draws the initial weights of another replicate of a search.

    Args:
        source, prunable, seed, replicate: see `build`.
        pretrained: the layers that it shares with replicate 0.
        first: the weights of replicate 0.

    Raises:
        ValueError: if the drawn weights equal those of the first replicate.
    """
    model, weights = build(source, prunable, seed, replicate)
    shared = trained_before(model, first, pretrained)
    # Only weights that are not constant are random: zero biases tell nothing.
    drawn = [
        name
        for name, array in weights.items()
        if name not in shared and "float" in array.dtype.name and np.ptp(array)
    ]
    if drawn and all(np.array_equal(first[name], weights[name]) for name in drawn):
        raise ValueError(
            f"Replicate {replicate} would start from the weights of replicate 0: the "
            "function that builds the model sets a seed, or gives it weights that were "
            "trained before. Remove the seed, name the layers in `pretrained`, or ask "
            "for one replicate."
        )
    return {**weights, **shared}


def _compiled(model: keras.Model) -> keras.Model:
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(
            "Expected a compiled Keras model, or a function that returns one. "
            f"Received: {model!r}. Call `model.compile(optimizer, loss, "
            "metrics=['accuracy'])` first."
        )
    return model
