"""Controls that change the weights that a ticket starts from, and keep its masks.

They test how much a ticket owes to those weights: to the training up to the rewind
point, or to pretraining before the search. Variables that are not masked stay as they
are, also those of BatchNorm, except in `permute_layers`, which exchanges whole layers.
`controls` lists them by name.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import redraw
from keras_lottery.tickets.snapshot import Snapshot
from keras_lottery.tickets.ticket import Ticket


def permute_layers(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, with the weights exchanged between layers that are alike.

    Layers are alike if they have the same shapes, and names that differ in numbers
    only: `block_0/query` and `block_1/query`. Each layer gets the weights of another
    one. If there are equally many layers of several kinds, all kinds follow the same
    order, so that whole blocks are permuted.

    Raises:
        ValueError: if no two layers are alike.

    Reference:
        Chen et al. 2020, "The lottery ticket hypothesis for pre-trained BERT networks",
        section 3.2 ("shuffled pre-trained weights").
    """
    kinds = _alike(ticket.weights)
    if not kinds:
        raise ValueError(
            "The control 'permute_layers' exchanges the weights of layers of the same "
            "shapes, whose names differ in numbers only, as `block_0/query` and "
            f"`block_1/query` do. Received: layers {sorted(_layers(ticket.weights))}. "
            "Name them so, or choose a control such as 'noise'."
        )
    # One order for each number of layers that are alike.
    orders: dict[int, np.ndarray] = {}
    weights = dict(ticket.weights)
    for layers in kinds:
        count = len(layers)
        if count not in orders:
            orders[count] = _derangement(count, snapshot.rng)
        for place, source in enumerate(orders[count]):
            for own, other in zip(layers[place], layers[source], strict=True):
                weights[own] = ticket.weights[other]
    return dataclasses.replace(ticket, weights=weights)


def _layers(state: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Returns the names in a state by layer, without random generators' states."""
    layers: dict[str, list[str]] = {}
    for name, array in state.items():
        if "float" in array.dtype.name:
            layers.setdefault(name.rpartition("/")[0], []).append(name)
    return layers


def _alike(state: Mapping[str, np.ndarray]) -> list[list[list[str]]]:
    """Returns groups of layers, as lists of names, that could exchange weights."""
    kinds: dict[tuple[Any, ...], list[list[str]]] = {}
    for layer, names in _layers(state).items():
        kind = re.sub(r"_?\d+", "", layer)
        shapes = tuple((n.removeprefix(layer), state[n].shape) for n in names)
        kinds.setdefault((kind, shapes), []).append(names)
    return [layers for layers in kinds.values() if len(layers) > 1]


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a random order in which no element keeps its place."""
    while True:
        order = rng.permutation(count)
        if (order != np.arange(count)).all():
            return order


@dataclasses.dataclass(frozen=True)
class Noise:
    """The same masks, with Gaussian noise added to the masked weights.

    `"noise"` is `Noise()`; another scale is given as `{"half": (Noise(0.5), 1)}`.

    Args:
        scale: the standard deviation of the noise, as a multiple of that of each
            layer's weights.
        of: the weights whose standard deviation is meant: `"start"`, those that the
            ticket starts from, or `"initial"`, those before any training.

    Raises:
        ValueError: if `scale` is not a positive number, or `of` is none of the two.

    Reference:
        Chen et al. 2020, "The lottery ticket hypothesis for pre-trained BERT networks":
        scales from 0.01 to 1 of the standard deviation of BERT's weights, 0.0387;
        Frankle et al. 2020, "The early phase of neural network training": 0.5 to 3
        times that of the initial weights.

    Example:

    >>> Noise(0.5)
    Noise(scale=0.5, of='start')
    """

    scale: float = 1.0
    of: Literal["start", "initial"] = "start"

    def __post_init__(self) -> None:
        checks.number("scale", self.scale, above=0)
        checks.choice("of", self.of, ("start", "initial"))

    def __call__(self, ticket: Ticket, snapshot: Snapshot) -> Ticket:
        """Applies the control; see `controls`."""

        spread = ticket.weights if self.of == "start" else snapshot.initial

        def noisy(name: str) -> np.ndarray:
            weight = ticket.weights[name]
            noise = snapshot.rng.normal(size=weight.shape)
            deviation = np.nanstd(spread[name].astype("float64"))
            return weight + self.scale * deviation * noise

        return with_masked_weights(ticket, noisy)


@dataclasses.dataclass(frozen=True)
class ShuffleWeights:
    """The same masks, with the kept weights exchanged at random within each layer.

    `"shuffle_weights"` is `ShuffleWeights()`. Three more names stand for the other
    arguments: `"shuffle_weights_same_sign"`, `"shuffle_in_filters"` and
    `"shuffle_in_filters_same_sign"`.

    Args:
        in_filters: exchange weights only within each filter, which is one index of the
            last axis: the weights of one unit in a dense layer.
        same_sign: exchange only weights of the same sign, so that all signs stay.

    Raises:
        ValueError: if an argument is not `True` or `False`.

    Reference:
        Frankle et al. 2020, [The early phase of neural network training](
        https://arxiv.org/abs/2002.10365), section 4.

    Example:

    >>> ShuffleWeights(in_filters=True)
    ShuffleWeights(in_filters=True, same_sign=False)
    """

    in_filters: bool = False
    same_sign: bool = False

    def __post_init__(self) -> None:
        checks.flag("in_filters", self.in_filters)
        checks.flag("same_sign", self.same_sign)

    def __call__(self, ticket: Ticket, snapshot: Snapshot) -> Ticket:
        """Applies the control; see `controls`."""

        def shuffled(name: str) -> np.ndarray:
            weight, left = ticket.weights[name], np.flatnonzero(ticket.masks[name])
            group = np.zeros(weight.shape, int)
            if self.in_filters:
                group += 2 * np.arange(weight.shape[-1])
            if self.same_sign:
                group += np.signbit(weight)
            group = group.ravel()[left]
            # Both visit the groups in the same order, one of them at random inside.
            source = left[np.lexsort((snapshot.rng.random(len(left)), group))]
            place = left[np.argsort(group, kind="stable")]
            made = weight.copy()
            made.flat[place] = weight.ravel()[source]
            return made

        return with_masked_weights(ticket, shuffled)


def initial_weights(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, with the masked weights of step 0 instead of the rewind point's.

    For a ticket that starts from the initial weights, this is the ticket itself.

    Reference:
        Frankle et al. 2020, "The early phase of neural network training", section 4.
    """
    return with_masked_weights(ticket, lambda name: snapshot.initial[name])


def initial_signs(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks and magnitudes, the signs of step 0; see `initial_weights`."""
    return with_masked_weights(
        ticket, lambda name: np.copysign(ticket.weights[name], snapshot.initial[name])
    )


def initial_magnitudes(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks and signs, the magnitudes of step 0; see `initial_weights`."""
    return with_masked_weights(
        ticket, lambda name: np.copysign(snapshot.initial[name], ticket.weights[name])
    )


def redraw_same_sign(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks and signs, with magnitudes of newly drawn initial weights.

    Same as `reinit_same_sign`, except that all variables that are not masked stay those
    of the rewind point. Reference: same as `initial_weights`.
    """
    seed = int(snapshot.rng.integers(2**31))
    drawn = redraw(snapshot.model, seed)
    return with_masked_weights(
        ticket, lambda name: np.copysign(drawn[name], ticket.weights[name])
    )


def with_masked_weights(ticket: Ticket, weight: Callable[[str], np.ndarray]) -> Ticket:
    """Returns the ticket with other values of its masked weights, of the same types."""
    masked = {
        name: weight(name).astype(ticket.weights[name].dtype) for name in ticket.masks
    }
    return dataclasses.replace(ticket, weights={**ticket.weights, **masked})
