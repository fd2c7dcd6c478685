"""Controls, which a ticket is compared with: `(ticket, snapshot) -> ticket`.

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

If weights were pruned in groups, such as blocks or whole filters, a control's masks
keep that form: each layer keeps the same number of groups, but other ones. If a control
changes weights, all variables that are not masked are drawn anew as well.

The controls in `perturbations` change the weights that the ticket starts from:
`permute_layers` gives each layer the weights of another one like it, `noise` adds
random numbers, `shuffle_weights` and `shuffle_in_filters` exchange weights within a
layer, `redraw_same_sign` keeps only their signs, and `initial_weights`, `initial_signs`
and `initial_magnitudes` take values from step 0. They test how much a ticket owes to
earlier training.

`snapshot` is the snapshot in which the ticket's masks were found; its `rng` differs
from trial to trial.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import redraw
from keras_lottery.registry import Registry
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets.perturbations import (
    Noise,
    ShuffleWeights,
    initial_magnitudes,
    initial_signs,
    initial_weights,
    permute_layers,
    redraw_same_sign,
    with_masked_weights,
)

__all__ = [
    "CONTROLS",
    "Control",
    "Noise",
    "ShuffleWeights",
    "constant",
    "constant_same_sign",
    "get",
    "initial_magnitudes",
    "initial_signs",
    "initial_weights",
    "invert",
    "permute_layers",
    "random",
    "redraw_same_sign",
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
    """The same masks, new weights drawn from the model's initialisers.

    Reference:
        Frankle & Carbin 2019, section 2 ("random reinitialization").
    """
    seed = int(snapshot.rng.integers(2**31))
    return dataclasses.replace(ticket, weights=redraw(snapshot.model, seed))


def shuffle(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same weights, with each layer's mask shuffled; groups of weights stay whole.

    Reference:
        Frankle et al. 2021, "Pruning neural networks at initialization", section 5.
    """
    masks = snapshot.grouping.shuffle(ticket.masks, snapshot.rng)
    return dataclasses.replace(ticket, masks=masks)


def random(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """Random masks with the ticket's density in each layer, and new weights.

    Reference:
        Frankle & Carbin 2019, figure 1 ("randomly sampled sparse networks").
    """
    return reinit(shuffle(ticket, snapshot), snapshot)


def invert(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same weights, and the masks of the worst scores instead of the best.

    Each layer keeps as many weights as in the ticket: of those that were left before,
    the ones with the lowest scores. If the ticket keeps more than half of them, the
    ticket and the control share some.

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
        # Integers and booleans become floats, so that the minus reverses their order.
        name: -np.asarray(score).astype(np.result_type(score, np.float32))
        for name, score in snapshot.scores.items()
    }
    masks = snapshot.grouping.rearrange(ticket.masks, worst, snapshot.masks)
    return dataclasses.replace(ticket, masks=masks)


def reinit_same_sign(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks and signs, new magnitudes: `reinit` with the ticket's signs.

    The signs are those of the weights that the ticket starts from.

    Reference:
        Zhou et al. 2019, "Deconstructing lottery tickets", section 3, "reinit" with
        "sign".
    """
    drawn = reinit(ticket, snapshot)
    return with_masked_weights(
        drawn, lambda name: np.copysign(drawn.weights[name], ticket.weights[name])
    )


def constant(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, every weight ±σ with a random sign.

    σ is the standard deviation of the layer's initial weights.

    Reference:
        Zhou et al. 2019, section 3, "constant".
    """
    return with_masked_weights(
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
    return with_masked_weights(
        reinit(ticket, snapshot),
        lambda name: np.copysign(_deviation(snapshot, name), ticket.weights[name]),
    )


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
        "shuffle_weights": ShuffleWeights(),
        "shuffle_weights_same_sign": ShuffleWeights(same_sign=True),
        "shuffle_in_filters": ShuffleWeights(in_filters=True),
        "shuffle_in_filters_same_sign": ShuffleWeights(in_filters=True, same_sign=True),
        "redraw_same_sign": redraw_same_sign,
        "initial_weights": initial_weights,
        "initial_signs": initial_signs,
        "initial_magnitudes": initial_magnitudes,
    },
)
"""Controls by name."""

get = CONTROLS.look_up
register = CONTROLS.register


def trials(
    controls: Mapping[str, int | tuple[Control, int]] | Sequence[str] | str | None,
) -> dict[str, int | tuple[Control, int]]:
    """Returns the number of trials by control; a list of names asks for one of each.

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
"""Names that a control may not have: files, columns and seeds have them already."""


def resolve(
    controls: Mapping[str, int | tuple[Control, int]],
) -> list[tuple[str, Control, int]]:
    """Returns (name, control, trial) for every trial of every control.

    Args:
        controls: the number of trials by control name, or (function, trials) by a name
            for the function.

    Raises:
        ValueError: if a name is unknown or taken, or a number of trials is not
            positive.

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
