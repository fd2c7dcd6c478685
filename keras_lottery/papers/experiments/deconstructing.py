"""Zhou et al.: which mask criterion works, and what matters in initial weights."""

import dataclasses
from collections.abc import Mapping
from operator import itemgetter

import numpy as np

from keras_lottery.keras_bridge.layers import set_state
from keras_lottery.papers.experiments.experiment import (
    ABOVE_ZERO,
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import gain
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.tickets import Snapshot, Ticket

ZHOU = (
    "Zhou et al. 2019, [Deconstructing lottery tickets: zeros, signs, and the "
    "supermask](https://arxiv.org/abs/1905.01067)"
)
CRITERIA = (
    "large_final",
    "magnitude_increase",
    "distance",
    "large_init_large_final",
    "large_init",
    "large_final_same_sign",
    "large_final_diff_sign",
    "random",
    "small_init",
    "small_init_small_final",
    "small_final",
)


def reshuffle(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """Shuffles the weights that a ticket keeps within each layer."""
    return _shuffled(ticket, snapshot, same_sign=False)


def reshuffle_same_sign(ticket: Ticket, snapshot: Snapshot) -> Ticket:
    """Same as `reshuffle`, but each weight takes the sign of the one it replaces."""
    return _shuffled(ticket, snapshot, same_sign=True)


def _shuffled(ticket: Ticket, snapshot: Snapshot, same_sign: bool) -> Ticket:
    weights = dict(ticket.weights)
    for name, mask in ticket.masks.items():
        kept = ticket.weights[name][mask]
        drawn = snapshot.rng.permutation(kept)
        weights[name] = ticket.weights[name].copy()
        weights[name][mask] = np.copysign(drawn, kept) if same_sign else drawn
    return dataclasses.replace(ticket, weights=weights)


CONTROLS = {
    **dict.fromkeys(
        ("reinit", "reinit_same_sign", "constant", "constant_same_sign"), 1
    ),
    "reshuffle": (reshuffle, 1),
    "reshuffle_same_sign": (reshuffle_same_sign, 1),
}


def run(lab: Lab) -> Mapping[str, Values]:
    """Searches with each criterion, and changes the weights of the first's tickets."""
    searches = {
        name: lab.search(
            name,
            rate=0.5,
            criterion=name,
            controls=CONTROLS if name == "large_final" else (),
        )
        for name in CRITERIA
    }
    criteria = lab.compare("criteria", searches, controls=False)
    table = lab.compare("weights", {"large_final": searches["large_final"]})
    signs = gain(table, 0.0635, "constant_same_sign", over="constant")
    ticket = gain(table, 0.0635, over="constant")
    # Masks that keep the weights that grew without changing sign.
    masked = searches["large_final_same_sign"]
    untrained = [_untrained(lab, masked, replicate) for replicate in lab.replicates]
    return {
        "magnitude increase": gain(criteria, 0.0635, "magnitude_increase", "ticket"),
        "over random": gain(criteria, 0.0635, over="random"),
        "over small final": gain(criteria, 0.0635, over="small_final"),
        "reinit sign": gain(table, 0.0635, "reinit_same_sign", "reinit"),
        "reshuffle sign": gain(table, 0.0635, "reshuffle_same_sign", "reshuffle"),
        "constant sign": signs,
        "share of signs": 100 * np.divide(signs, ticket),
        "untrained": untrained,
    }


def _untrained(lab: Lab, search: LotteryTicketSearch, replicate: int) -> float:
    """Test accuracy of masked constants with the initial signs, without training.

    The level is the one with the highest validation accuracy.
    """
    model, _ = lab.model(replicate)
    found = []
    for level in range(1, lab.scale.levels + 1):
        ticket = search.ticket(level, replicate)
        constants = {
            name: np.std(ticket.weights[name]) * np.sign(ticket.weights[name])
            for name in ticket.masks
        }
        state = {**ticket.weights, **constants}
        set_state(model, state, ticket.masks)
        validation, test = (
            model.evaluate(*part, verbose=0, return_dict=True)["accuracy"]
            for part in (lab.splits.validation, lab.splits.test)
        )
        found.append((validation, 100 * test))
    return max(found, key=itemgetter(0))[1]


EXPERIMENT = Experiment(
    "deconstructing",
    "Mask criteria, and signs versus magnitudes",
    ZHOU,
    lenet(
        cpu="201 trainings of 7,328 steps, about 22 minutes on 2 cores",
        paper="335 trainings of 50,000 steps",
        levels=4,
        report=(2, 4),
    ),
    run,
    (
        Claim(
            "At 6 %, magnitude_increase does as well as large_final",
            published="as well or better",
            source="figure 4",
            value="magnitude increase",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        effect(
            "At 6 %, large_final is more accurate than random masks",
            published="more accurate",
            source="figure 4",
            value="over random",
            size=0,
            unit="pp",
        ),
        effect(
            "At 6 %, large_final is more accurate than small_final",
            published="more accurate",
            source="figure 4",
            value="over small final",
            size=0,
            unit="pp",
        ),
        effect(
            "Reinitialised weights do better with the ticket's signs",
            published="better",
            source="figure 5",
            value="reinit sign",
            size=0,
            unit="pp",
        ),
        effect(
            "Reshuffled weights do better with the ticket's signs",
            published="better",
            source="figure 5",
            value="reshuffle sign",
            size=0,
            unit="pp",
        ),
        effect(
            "Constants do better with the ticket's signs",
            published="better",
            source="figure 5",
            value="constant sign",
            size=0,
            unit="pp",
        ),
        Claim(
            "Signs explain most of the ticket's gain over constants with random signs",
            published="most",
            source="figure 5",
            value="share of signs",
            reproduced=(50, INFINITY),
            unit="%",
            sign=ABOVE_ZERO,
        ),
        Claim(
            "Masked constants with the ticket's signs are far above chance without any "
            "training (best level)",
            published="86 %",
            source="section 5",
            value="untrained",
            reproduced=(76, INFINITY),
            unit="%",
            sign=(20, INFINITY),
        ),
    ),
)
