"""The weights that the replicates of a search start from."""

import contextlib
import warnings
import zlib
from collections.abc import Callable, Iterable

import keras
import numpy as np

from keras_lottery.files import CorruptedFileError, read_record, write_record
from keras_lottery.keras_bridge.layers import (
    State,
    get_state,
    mask_model,
    redraw,
    set_state,
)
from keras_lottery.keras_bridge.layers.convert import Prunable
from keras_lottery.search.store import Store


def derive_seed(
    seed: int, replicate: int, purpose: str, level: int = 0, trial: int = 0
) -> int:
    """A seed of its own for everything in a search that is random."""
    entropy = [seed, replicate, level, trial, zlib.crc32(purpose.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def build(
    source: keras.Model | Callable[[], keras.Model],
    prunable: Prunable,
    seed: int,
    replicate: int,
) -> tuple[keras.Model, State]:
    """The masked model, and the weights that a replicate starts from.

    Args:
        source: a compiled model, whose weights replicate 0 keeps, or a function that
            builds one.
        prunable: as of `mask_model`.
        seed: the search's seed.
        replicate: which replicate.

    Raises:
        ValueError: if the model is not compiled, or cannot be masked.
    """
    drawn = derive_seed(seed, replicate, "initial")
    if isinstance(source, keras.Model):
        model = mask_model(_compiled(source), prunable)
        return model, redraw(model, drawn) if replicate else get_state(model)
    keras.utils.set_random_seed(drawn)
    model = mask_model(_compiled(source()), prunable)
    return model, get_state(model)


def stored_weights(store: Store, replicate: int, is_first: bool) -> State | None:
    """A replicate's initial weights, or None if they are to be drawn.

    Warns if the model that was given has others.

    Args:
        store: where they are kept.
        replicate: which replicate.
        is_first: whether replicate 0 would start from the weights that it had.

    Raises:
        CorruptedFileError: if they are lost, and cannot be drawn again.
    """
    try:
        found = read_record(store.initial(replicate), "initial")[1]["weights"]
    except FileNotFoundError:
        return None
    except CorruptedFileError as error:
        if not is_first and not replicate:
            raise
        warnings.warn(f"{error}. It is made again.", stacklevel=2)
        return None
    if not is_first and not replicate:
        warnings.warn(
            f"The search in '{store.directory}' began with other weights than the "
            "model has now: it goes on with its own. Choose another directory to "
            "search from the model's.",
            stacklevel=4,
        )
    return found


def with_stored_weights(model: keras.Model, store: Store) -> keras.Model:
    """The model with the weights that replicate 0 starts from, if they are there."""
    with contextlib.suppress(FileNotFoundError, CorruptedFileError):
        set_state(model, read_record(store.initial(0), "initial")[1]["weights"])
    return model


def drawn_weights(
    replicate: int,
    masks: Iterable[str],
    first: State,
    draw: Callable[[], tuple[keras.Model, State]],
) -> State:
    """New initial weights of a replicate.

    Args:
        replicate: which replicate.
        masks: names of the masked weights.
        first: the weights of replicate 0.
        draw: `build` for this replicate.

    Raises:
        ValueError: if they are drawn equal to the first replicate's.
    """
    if not replicate:
        return first
    weights = draw()[1]
    if all(np.array_equal(first[name], weights[name]) for name in masks):
        raise ValueError(
            f"Replicate {replicate} would start from the weights of replicate 0: the "
            "function that builds the model sets a seed. Remove the seed, or ask for "
            "one replicate."
        )
    return weights


def write_weights(store: Store, replicate: int, weights: State) -> None:
    """Stores a replicate's initial weights."""
    write_record(store.initial(replicate), {"kind": "initial"}, {"weights": weights})


def _compiled(model: keras.Model) -> keras.Model:
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(
            "Expected a compiled Keras model, or a function that returns one. "
            f"Received: {model!r}. Call `model.compile(optimizer, loss, "
            "metrics=['accuracy'])` first."
        )
    return model
