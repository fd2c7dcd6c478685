"""The weights that the replicates of a search start from."""

import warnings
import zlib
from collections.abc import Callable

import keras
import numpy as np

from keras_lottery.layers import State, get_masks, get_state, mask_model, redraw
from keras_lottery.layers.convert import Prunable
from keras_lottery.search.settings import describe_state
from keras_lottery.store import (
    CorruptedFileError,
    Store,
    read_json,
    read_record,
    write_record,
)


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


def initial_weights(
    store: Store,
    replicate: int,
    model: keras.Model,
    first: State,
    draw: Callable[[], tuple[keras.Model, State]],
) -> State:
    """A replicate's initial weights: the stored ones, or new ones, which are stored.

    Args:
        store: where they are kept.
        replicate: which replicate.
        model: the masked model.
        first: the weights of replicate 0.
        draw: `build` for this replicate.

    Raises:
        ValueError: if they are drawn equal to the first replicate's.
        CorruptedFileError: if the stored ones are lost, and `first` is not what they
            were.
    """
    path = store.initial(replicate)
    try:
        return read_record(path, "initial")[1]["weights"]
    except FileNotFoundError:
        pass
    except CorruptedFileError as error:
        lost = read_json(store.settings)["initial"] != describe_state(first)
        if lost and not replicate:
            raise
        warnings.warn(f"{error}. It is made again.", stacklevel=2)
    weights = draw()[1] if replicate else first
    if replicate and all(
        np.array_equal(first[name], weights[name]) for name in get_masks(model)
    ):
        raise ValueError(
            f"Replicate {replicate} would start from the weights of replicate 0: the "
            "function that builds the model sets a seed. Remove the seed, or ask for "
            "one replicate."
        )
    write_record(path, {"kind": "initial"}, {"weights": weights})
    return weights


def _compiled(model: keras.Model) -> keras.Model:
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(
            "Expected a compiled Keras model, or a function that returns one. "
            f"Received: {model!r}. Call `model.compile(optimizer, loss, "
            "metrics=['accuracy'])` first."
        )
    return model
