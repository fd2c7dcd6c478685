"""State that a layer keeps outside its config and its variables.

One example is the vocabulary that a lookup layer was adapted to. Keras writes such
state into files beside the variables (`save_assets`), or among them under a name that
no variable has (`save_own_variables`). A layer that is made only from the config lacks
it.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_lottery.keras_bridge.layers.names import walk


def has_assets(layer: Any) -> bool:
    """Whether a layer keeps state outside its config and its variables."""
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            if any(Path(folder).iterdir()):
                return True
    return _saves_itself(layer) and len(_store(layer)) > len(layer.variables)


def copy_assets(old: Any, new: Any) -> None:
    """Copies the files of a layer and of inner layers that the new layer already has.

    It is called before the new layer is built, since the size of a vocabulary may
    decide the size of the output. It is called again afterwards for inner layers that
    building creates.

    Raises:
        ValueError: if the files cannot be copied.
    """
    for one, other in _pairs(old, new):
        if not hasattr(one, "save_assets"):
            continue
        with tempfile.TemporaryDirectory() as folder, _copying(one):
            one.save_assets(folder)
            if any(Path(folder).iterdir()):
                other.load_own_variables(_store(one))
                other.load_assets(folder)
                _check_equal(one, other)


def _check_equal(one: Any, other: Any) -> None:
    # Keras writes a line for each word, but a word may contain line breaks.
    if hasattr(one, "get_vocabulary"):
        before, after = one.get_vocabulary(), other.get_vocabulary()
        if list(before) != list(after):
            raise ValueError(
                f"its vocabulary of {len(before)} words would be one of {len(after)}"
            )


def copy_own(old: Any, new: Any) -> None:
    """Copies the state of layers that have their own way of saving it.

    Raises:
        ValueError: if the state cannot be copied.
    """
    for one, other in _pairs(old, new):
        if _saves_itself(one):
            with _copying(one):
                other.load_own_variables(_store(one))


def _pairs(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """Yields a layer and its inner layers, each with its counterpart in the other."""
    if not isinstance(old, keras.layers.Layer):
        return  # A function of `keras.ops`.
    inside = {"": new, **dict(walk(new))}
    for path, layer in [("", old), *walk(old)]:
        if path in inside:
            yield layer, inside[path]


def _store(layer: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return store


def _saves_itself(layer: Any) -> bool:
    """Whether `save_own_variables` is neither Keras's nor this library's."""
    return any(
        "save_own_variables" in vars(owner)
        and owner.__module__.partition(".")[0] not in ("keras", "keras_lottery")
        for owner in type(layer).__mro__
    )


@contextlib.contextmanager
def _copying(layer: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"What layer '{layer.name}' ({type(layer).__name__}) keeps outside its "
            f"variables cannot be copied: {error}. Give it a vocabulary when you make "
            "it, or apply it to the data outside the model."
        ) from error
