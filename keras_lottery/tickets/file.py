"""A ticket's file, which leaves out the values that the training does not use."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import checks, files
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import State, redraw
from keras_lottery.masks import Masks

META = ("step", "steps", "learning_rate", "architecture", "card", "seed")
WEIGHTS = ("kept", "all", "seed")
"""The choices of the starting weights that a file holds."""


def write(
    path: str | os.PathLike, fields: Mapping[str, Any], weights: str = "kept"
) -> None:
    """Writes the fields of a ticket; see `Ticket.save` for arguments and errors."""
    checks.path("path", path, (".ticket",))
    checks.choice("weights", weights, WEIGHTS)
    fields = dict(fields)
    masks = fields.pop("masks")
    states = {name: fields.pop(name) for name in ("weights", "trained")}
    packed = {"weights": [], "trained": _packable(states["trained"] or {}, masks)}
    meta = {
        "kind": "ticket",
        **fields,
        "card": dict(fields["card"]),
        "is_trained": states["trained"] is not None,
        "packed": packed,
    }
    if weights == "seed":
        meta |= _draw(states.pop("weights"), fields)
    elif weights == "kept":
        packed["weights"] = _packable(states["weights"], masks)
    contents = {
        group: {
            name: array[masks[name]] if name in packed[group] else array
            for name, array in (state or {}).items()
        }
        for group, state in states.items()
    }
    files.write_record(path, meta, contents, masks)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the fields of a ticket that `write` wrote; see `load_ticket` for errors."""
    meta, states, masks = files.read_record(
        checks.existing_file("path", path), "ticket"
    )
    with files.refuse_damage(path):
        if masks is None:
            raise ValueError("it has no masks")
        for group, names in meta["packed"].items():
            for name in names:
                states[group][name] = _unpack(
                    states[group][name],
                    masks[name],
                    np.nan if group == "weights" else 0,
                )
        fields = {
            "masks": masks,
            "weights": states.get("weights"),
            "trained": states["trained"] if meta["is_trained"] else None,
            **{name: meta[name] for name in META},
        }
    if fields["weights"] is None:
        fields["weights"] = _redraw(meta, path)
    return fields


def _packable(state: State, masks: Masks) -> list[str]:
    """Returns the names of the weights whose pruned entries a file can leave out."""
    return [
        name
        for name, array in state.items()
        # Other types have no NaN that could stand for the missing entries.
        if "float" in array.dtype.name
        and name in masks
        and masks[name].shape == array.shape
    ]


def _unpack(kept: np.ndarray, mask: np.ndarray, fill: float) -> np.ndarray:
    if kept.shape != (np.count_nonzero(mask),):
        raise ValueError(f"{kept.shape} weights for a mask that keeps {mask.sum()}")
    array = np.full(mask.shape, fill, kept.dtype)
    array[mask] = kept
    return array


def _draw(weights: State, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields from which `_redraw` draws the weights, once they agree."""
    seed, text = fields["seed"], fields["architecture"]
    if seed is None or text is None:
        raise ValueError(
            "Expected a ticket with a seed and an architecture for weights='seed'. "
            f"Received: seed={seed}, {'no' if text is None else 'an'} architecture. "
            "Save it with weights='kept'."
        )
    digest = files.digest(weights)
    if files.digest(redraw(_model(text), seed)) != digest:
        raise ValueError(
            "Expected starting weights that the architecture's initialisers draw with "
            f"the ticket's seed, {seed}. Received: others; they were rewound to a "
            "later step, given, or drawn in another way. Save it with weights='kept'."
        )
    return {"digest": digest, "drawn_with": _versions()}


def _redraw(meta: Mapping[str, Any], path: str | os.PathLike) -> State:
    weights = redraw(_model(meta["architecture"]), meta["seed"])
    if files.digest(weights) != meta["digest"]:
        raise ValueError(
            f"'{os.fspath(path)}' holds a seed instead of weights, and it draws others "
            f"here, with {_versions()}, than with {meta['drawn_with']}. "
            "Load it with that, and save it with weights='kept'."
        )
    return weights


def _model(text: str) -> keras.Model:
    with warnings.catch_warnings():
        # Whether it can be compiled does not matter here.
        warnings.simplefilter("ignore")
        return architecture.from_text(text)


def _versions() -> str:
    return f"Keras {keras.__version__} on {keras.backend.backend()}"
