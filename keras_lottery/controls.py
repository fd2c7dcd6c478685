"""What a ticket is held against: `(ticket, snapshot) -> ticket`.

Each control takes away one thing that might make the ticket win, and is trained beside
it, in the same way:

|              | the ticket's weights | random weights |
|--------------|----------------------|----------------|
| its masks    | the ticket           | `reinit`       |
| random masks | `shuffle`            | `random`       |

`snapshot` is the one that the ticket's masks were found in; its `rng` differs from
trial to trial.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from keras_lottery.layers import redraw, set_state
from keras_lottery.masks import Masks
from keras_lottery.registry import look_up
from keras_lottery.ticket import Snapshot, Ticket

Control = Callable[[Ticket, Snapshot], Ticket]


def reinit(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same masks, weights drawn anew from the model's initialisers.

    Reference:
        Frankle & Carbin 2019, section 2 ("random reinitialization").
    """
    seed = int(snapshot.rng.integers(2**31))
    return dataclasses.replace(ticket, weights=redraw(snapshot.model, seed))


def shuffle(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The same weights, each layer's mask shuffled.

    Reference:
        Frankle et al. 2021, "Pruning neural networks at initialization", section 5.
    """
    masks = {
        name: snapshot.rng.permutation(mask.ravel()).reshape(mask.shape)
        for name, mask in ticket.masks.items()
    }
    return dataclasses.replace(ticket, masks=Masks(masks))


def random(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """Random masks of the ticket's layer densities, and weights drawn anew.

    Reference:
        Frankle & Carbin 2019, figure 1 ("randomly sampled sparse networks").
    """
    return reinit(shuffle(ticket, snapshot), snapshot)


CONTROLS: dict[str, Control] = {"reinit": reinit, "shuffle": shuffle, "random": random}


def get(control: str | Control) -> Control:
    """A control by name, or the one given.

    Raises:
        ValueError: if the name is unknown.

    >>> get("reinit") is reinit
    True
    """
    form = "a function (ticket, snapshot) -> ticket"
    return look_up("control", control, CONTROLS, form)


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
    return dict.fromkeys(controls or (), 1)


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
    for name, given in controls.items():
        control, count = given if isinstance(given, tuple) else (name, given)
        # Names become those of files and columns.
        taken = name in ("ticket", "trunk", "accuracy", "early_stop")
        if not isinstance(count, int) or count < 1 or taken or not name.isidentifier():
            raise ValueError(
                "Expected `controls` to be names with at least one trial each, such as "
                f"{{'reinit': 3}} or {{'mine': (function, 3)}}. Received: {name!r}: "
                f"{given!r}"
            )
        function = get(control)
        resolved += [(name, function, trial) for trial in range(count)]
    return resolved


def apply(control: Control, ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """The control's ticket; the snapshot's model holds the snapshot again for it."""
    # The ticket's training has left its own weights in the model.
    set_state(snapshot.model, snapshot.final, snapshot.masks)
    return control(ticket, snapshot)
