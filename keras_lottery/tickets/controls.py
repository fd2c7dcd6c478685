"""What a ticket is held against: `(ticket, snapshot) -> ticket`.

Each control takes away one thing that might make the ticket win, and is trained beside
it, in the same way:

=================  ====================  ======================  ==============
masks              the ticket's weights  their signs             random weights
=================  ====================  ======================  ==============
the ticket's       the ticket            `reinit_same_sign`,     `reinit`,
                                         `constant_same_sign`    `constant`
random masks       `shuffle`                                     `random`
the worst masks    `invert`
=================  ====================  ======================  ==============

Two more change the weights that the ticket starts from, and keep its masks:
`permute_layers` gives each layer those of another one like it, and `noise` adds random
numbers. They ask how much a ticket owes to weights that were trained before.

Where weights were pruned in groups, blocks or whole filters, masks keep that form: as
many groups of each layer, others of them.

The controls that change weights change those that are masked; all other variables are
drawn anew. `snapshot` is the one that the ticket's masks were found in; its `rng`
differs from trial to trial.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import redraw
from keras_lottery.registry import Registry
from keras_lottery.tickets import Snapshot, Ticket

__all__ = [
    "CONTROLS",
    "Control",
    "Noise",
    "constant",
    "constant_same_sign",
    "get",
    "invert",
    "permute_layers",
    "random",
    "register",
    "reinit",
    "reinit_same_sign",
    "resolve",
    "shuffle",
    "trials",
]

Control = Callable[[Ticket, Snapshot], Ticket]
MOST_TRIALS = 10_000
FORM = (
    "names with at least one trial each, such as ['reinit'], {'reinit': 3} or "
    "{'mine': (function, 3)}"
)


def reinit(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, weights drawn anew from the model's initialisers.

    Reference:
        Frankle & Carbin 2019, section 2 ("random reinitialization").
    """
    seed = int(snapshot.rng.integers(2**31))
    return dataclasses.replace(ticket, weights=redraw(snapshot.model, seed))


def shuffle(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same weights, each layer's mask shuffled, groups of weights whole.

    Reference:
        Frankle et al. 2021, "Pruning neural networks at initialization", section 5.
    """
    masks = snapshot.grouping.shuffle(ticket.masks, snapshot.rng)
    return dataclasses.replace(ticket, masks=masks)


def random(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """Random masks of the ticket's layer densities, and weights drawn anew.

    Reference:
        Frankle & Carbin 2019, figure 1 ("randomly sampled sparse networks").
    """
    return reinit(shuffle(ticket, snapshot), snapshot)


def invert(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same weights, and the masks of the worst scores instead of the best.

    Each layer keeps as many of the weights that were left before as the ticket does,
    those that come last in the order of the ticket's scores. Where the ticket keeps
    more than half of them, the two share some.

    Raises:
        ValueError: if the snapshot has no scores.

    Reference:
        Frankle et al. 2021, "Pruning neural networks at initialization", section 5.
    """
    if snapshot.scores is None:
        raise ValueError(
            "The control 'invert' needs the scores that the masks were found by. "
            "Received: snapshot.scores=None. A search gives them."
        )
    worst = {
        # Of integers and booleans, too, a negative is the opposite.
        name: -np.asarray(score).astype(np.result_type(score, np.float32))
        for name, score in snapshot.scores.items()
    }
    masks = snapshot.grouping.rearrange(ticket.masks, worst, snapshot.masks)
    return dataclasses.replace(ticket, masks=masks)


def reinit_same_sign(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks and signs, magnitudes drawn anew: `reinit`, signs put back.

    The signs are those of the weights that the ticket starts from.

    Reference:
        Zhou et al. 2019, "Deconstructing lottery tickets", section 3, "reinit" with
        "sign".
    """
    drawn = reinit(ticket, snapshot)
    return _with_masked_weights(
        drawn, lambda name: np.copysign(drawn.weights[name], ticket.weights[name])
    )


def constant(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, every weight ±σ with a random sign.

    σ is the standard deviation of the layer's initial weights.

    Reference:
        Zhou et al. 2019, section 3, "constant".
    """
    return _with_masked_weights(
        reinit(ticket, snapshot),
        lambda name: np.copysign(
            _deviation(snapshot, name),
            snapshot.rng.random(ticket.masks[name].shape, np.float32) - 0.5,
        ),
    )


def constant_same_sign(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks and signs, every weight ±σ: `constant` with the ticket's signs.

    Reference:
        Zhou et al. 2019, section 3, "constant" with "sign".
    """
    return _with_masked_weights(
        reinit(ticket, snapshot),
        lambda name: np.copysign(_deviation(snapshot, name), ticket.weights[name]),
    )


def permute_layers(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, the weights of layers that are alike exchanged.

    Layers are alike that have the same shapes, and names that differ in numbers only:
    `block_0/query` and `block_1/query`. Each gets the weights of another one. Where
    there are as many of several kinds, all follow one order: whole blocks are permuted.

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
    # By how many they are.
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
    """The names of a state by layer, without the states of random generators."""
    layers: dict[str, list[str]] = {}
    for name, array in state.items():
        if "float" in array.dtype.name:
            layers.setdefault(name.rpartition("/")[0], []).append(name)
    return layers


def _alike(state: Mapping[str, np.ndarray]) -> list[list[list[str]]]:
    """Layers, as lists of names, that could exchange their weights."""
    kinds: dict[tuple[Any, ...], list[list[str]]] = {}
    for layer, names in _layers(state).items():
        kind = re.sub(r"_?\d+", "", layer)
        shapes = tuple((n.removeprefix(layer), state[n].shape) for n in names)
        kinds.setdefault((kind, shapes), []).append(names)
    return [layers for layers in kinds.values() if len(layers) > 1]


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random order in which none keeps its place."""
    while True:
        order = rng.permutation(count)
        if (order != np.arange(count)).all():
            return order


@dataclasses.dataclass(frozen=True)
class Noise:
    """The same masks, Gaussian noise added to the masked weights.

    `"noise"` is `Noise()`; another scale is given as `{"half": (Noise(0.5), 1)}`.

    Args:
        scale: the standard deviation of the noise, as a multiple of that of each
            layer's weights, which the ticket starts from.

    Raises:
        ValueError: if `scale` is not a positive number.

    Reference:
        Chen et al. 2020, "The lottery ticket hypothesis for pre-trained BERT networks":
        scales from 0.01 to 1 of the standard deviation of BERT's weights, 0.0387.

    Example:

    >>> Noise(0.5)
    Noise(scale=0.5)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        checks.number("scale", self.scale, above=0)

    def __call__(self, ticket: Ticket, snapshot: Snapshot) -> Ticket:
        """The control, see `controls`."""

        def noisy(name: str) -> np.ndarray:
            weight = ticket.weights[name]
            noise = snapshot.rng.normal(size=weight.shape)
            return weight + self.scale * np.nanstd(weight.astype("float64")) * noise

        return _with_masked_weights(ticket, noisy)


def _with_masked_weights(ticket: Ticket, weight: Callable[[str], np.ndarray]) -> Ticket:
    masked = {
        name: weight(name).astype(ticket.weights[name].dtype) for name in ticket.masks
    }
    return dataclasses.replace(ticket, weights={**ticket.weights, **masked})


def _deviation(snapshot: Snapshot, name: str) -> float:
    deviation = float(np.std(snapshot.initial[name]))
    if not deviation:
        raise ValueError(
            "A constant of the layer's initial standard deviation needs initial "
            f"weights that differ. Received: `{name}` with equal ones. Choose a "
            "control such as 'reinit'."
        )
    return deviation


CONTROLS: Registry[Control] = Registry(
    "control",
    "a function (ticket, snapshot) -> ticket",
    {
        "reinit": reinit,
        "shuffle": shuffle,
        "random": random,
        "invert": invert,
        "reinit_same_sign": reinit_same_sign,
        "constant": constant,
        "constant_same_sign": constant_same_sign,
        "permute_layers": permute_layers,
        "noise": Noise(),
    },
)
"""Controls by name."""

get = CONTROLS.look_up
register = CONTROLS.register


def trials(
    controls: Mapping[str, int | tuple[Control, int]] | Sequence[str] | str | None,
) -> dict[str, int | tuple[Control, int]]:
    """The number of trials by control, one for names alone.

    >>> trials(["reinit", "shuffle"])
    {'reinit': 1, 'shuffle': 1}
    """
    if isinstance(controls, str):
        controls = [controls]
    if isinstance(controls, Mapping):
        return dict(controls)
    given = () if controls is None else controls
    checks.names("controls", checks.sequence("controls", given, FORM), FORM)
    if len(set(given)) < len(given):
        remedy = "Trials are asked for by number: {'reinit': 3}."
        checks.refuse("controls", "names that differ", controls, remedy)
    return dict.fromkeys(given, 1)


TAKEN = {"ticket", "mask_finding", "early_stop", "initial", "order", "prune"}
"""Names of other files, columns and seeds: a control has one of each by its name."""


def resolve(
    controls: Mapping[str, int | tuple[Control, int]],
) -> list[tuple[str, Control, int]]:
    """(name, control, trial) for every trial of every control.

    Args:
        controls: trials by name, or (function, trials) by a name for the function.

    Raises:
        ValueError: if a name is unknown or taken, or there are no trials.

    >>> [(name, trial) for name, _, trial in resolve({"reinit": 2})]
    [('reinit', 0), ('reinit', 1)]
    """
    resolved = []
    checks.instance("controls", controls, Mapping, FORM)
    for name, given in controls.items():
        control: Any
        count: Any
        control, count = name, given
        if isinstance(given, tuple) and len(given) == 2:
            control, count = given
        if name in TAKEN or not isinstance(name, str) or not name.isidentifier():
            checks.refuse("controls", FORM, controls)
        count = checks.count(f"controls[{name!r}]", count, 1, MOST_TRIALS)
        if isinstance(control, str):
            checks.choice("controls", control, CONTROLS.names())
        function = get(control)
        resolved += [(name, function, trial) for trial in range(count)]
    return resolved
