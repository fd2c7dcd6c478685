"""Carries a ticket over to another network."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    mask_model,
    walk,
)
from keras_lottery.masks import Masks

Replace = str | Iterable[str]


@dataclass
class Carried:
    """The parts of a ticket that another network takes over.

    Args:
        model: the network, with the layers masked that are masked in the ticket.
        masks: the masks of the whole network.
        weights: the weights that come from the ticket.
        own: the layers that keep the network's own weights, each with the reason.
        left: the ticket's layers that the network does not have.
    """

    model: keras.Model
    masks: Masks
    weights: State = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def report(self) -> dict[str, object]:
        """Returns which layers were carried over, kept or left, for JSON."""
        carried = sorted({_layer(name) for name in self.weights})
        return {"carried": carried, "own": self.own, "left": self.left}


def carry_over(
    masks: Masks, weights: State, text: str | None, model: keras.Model, replace: Replace
) -> Carried:
    """Returns the masks and weights of a ticket for another network.

    Args:
        masks, weights, text: the ticket's masks, weights and architecture.
        model, replace: same as in `Ticket.transfer`, which also lists the errors.
    """
    pruned = {_layer(name) for name in masks}
    chosen = {id(layer) for path, layer in walk(model) if path in pruned}
    if not chosen:
        raise ValueError(
            f"Expected a model with layers of the ticket, {sorted(pruned)}. Received: "
            f"model '{model.name}' with {[path for path, _ in walk(model)]}. Name its "
            "layers as the ticket's are."
        )
    model = mask_model(model, lambda layer: id(layer) in chosen)
    asked = matching("replace", model, replace)
    adapted = {path for path, layer in walk(model) if hasattr(layer, "finalize_state")}
    own_state, own_masks = get_state(model), get_masks(model)
    theirs, ours = _by_layer(weights), _by_layer(own_state)
    result = Carried(model, own_masks, left=sorted(theirs.keys() - ours.keys()))
    carried: dict[str, np.ndarray] = {}
    for layer, shapes in ours.items():
        if layer in asked:
            result.own[layer] = "replaced, as asked"
        elif layer in adapted:
            result.own[layer] = "adapted to the data here"
        elif layer not in theirs:
            result.own[layer] = "not in the ticket"
        elif shapes != theirs[layer]:
            _check_head(layer, theirs[layer], shapes, text, model)
            result.own[layer] = (
                f"{_listing(theirs[layer])} there, {_listing(shapes)} here"
            )
        else:
            carried |= {name: weights[name] for name in shapes}
    unmasked = sorted(carried.keys() & masks.keys() - own_masks.keys())
    if unmasked or not carried.keys() & masks.keys():
        raise ValueError(
            "Expected a model that takes masks of the ticket. Received: "
            + (
                f"layers that have no masked form, {unmasked}. Pass them in `replace`."
                if unmasked
                else f"model '{model.name}', whose layers all differ: {result.own}"
            )
        )
    result.weights = carried
    result.masks = Masks(
        {name: (masks if name in carried else own_masks)[name] for name in own_masks}
    )
    return result


def _layer(name: str) -> str:
    """Returns the path of the layer that holds a variable."""
    return name.rpartition("/")[0]


def _by_layer(state: State) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns a state's shapes by layer and name, without random generators' states."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, array in state.items():
        if "float" in array.dtype.name:
            layers.setdefault(_layer(name), {})[name] = array.shape
    return layers


def matching(argument: str, model: keras.Model, patterns: Replace) -> set[str]:
    """Returns the paths of the layers that match patterns, and of layers inside them.

    Args:
        argument: the name of the argument that the patterns were passed as.
        model: a built model.
        patterns: names or paths of layers, with wildcards.

    Raises:
        ValueError: if a pattern matches no layer.
    """
    paths = {path: layer.name for path, layer in walk(model)}
    found = set()
    given = [patterns] if isinstance(patterns, str) else patterns
    for pattern in checks.names(argument, given, "names or patterns of layers"):
        # The layer's own name in Keras comes first, as in `mask_model`.
        tops = [p for p, name in paths.items() if fnmatch.fnmatchcase(name, pattern)]
        tops = tops or [p for p in paths if fnmatch.fnmatchcase(p, pattern)]
        if not tops:
            raise ValueError(
                f"`{argument}` names {pattern!r}, which matches no layer of the model: "
                f"{sorted(paths)}"
            )
        found |= {
            path for path in paths for top in tops if f"{path}/".startswith(f"{top}/")
        }
    return found


def _check_head(
    layer: str,
    theirs: dict[str, tuple[int, ...]],
    ours: dict[str, tuple[int, ...]],
    text: str | None,
    model: keras.Model,
) -> None:
    """Raises ValueError if a layer differs in more than its number of units."""
    if theirs.keys() == ours.keys() and all(
        theirs[name][:-1] == ours[name][:-1] for name in ours
    ):
        return
    inputs = ""
    if text is not None:
        there = [x.shape[1:] for x in architecture.from_text(text).inputs]
        here = [x.shape[1:] for x in model.inputs]
        if there != here:
            inputs = f" The ticket's inputs are of shape {there}, the model's {here}."
    raise ValueError(
        f"Expected the layer '{layer}' of the model to be as in the ticket, except for "
        f"its number of units: {_listing(theirs)}. Received: {_listing(ours)}.{inputs} "
        f"Bring the data and the model to the ticket's shapes, or give the layer "
        f"weights of its own: replace=[{layer!r}]"
    )


def _listing(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(
        f"{name.rpartition('/')[2]} {shape}" for name, shape in shapes.items()
    )
