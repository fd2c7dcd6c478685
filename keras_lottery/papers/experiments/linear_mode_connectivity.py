"""Frankle et al.: does a line of low error link trainings with different noise?"""

from collections.abc import Mapping

from keras_lottery.keras_bridge.layers import State, set_masks
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Values,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.papers.experiments.training import Start
from keras_lottery.study.analysis import instability

SHARES = (0.0, 0.02, 0.1, 0.3)
STABLE = (-INFINITY, 2.0)


def run(lab: Lab) -> Mapping[str, Values]:
    """Measures error barriers between copies trained on the data in two orders."""
    import pandas as pd

    often = lab.recipe.eval_freq
    points = sorted({often * round(s * lab.recipe.steps / often) for s in SHARES})
    search = lab.search("iterative")
    levels = lab.scale.report or [lab.scale.levels]
    rows = []
    trained = lab.train_all(
        "dense",
        {str(r): Start(checkpoints=points, replicate=r) for r in lab.replicates},
    )
    for replicate, dense in zip(lab.replicates, trained.values(), strict=True):
        every = search.ticket(0, replicate).masks
        starts = [("dense", k, dense.states[k], every) for k in points]
        for level in levels:
            ticket = search.ticket(level, replicate)
            starts.append(("ticket", 0, ticket.weights, ticket.masks))
        for kind, k, state, masks in starts:
            name = f"{kind}_{masks.density:.3f}_from_{k}_{replicate}"
            barrier = barrier_from(lab, name, state, masks, k, replicate)
            rows.append((kind, masks.density, k, replicate, barrier))
    names = ["network", "density", "from_step", "replicate", "instability"]
    table = pd.DataFrame(rows, columns=names)
    lab.table("instability", table)
    label = "instability (pp of error)"
    dense_rows = table[table["network"] == "dense"]
    lab.figure("dense", lines(dense_rows, "from_step", "instability", label))
    at_init = table[table["from_step"] == 0]
    lab.figure("tickets", lines(at_init, "density", "instability", label))
    first, last = (
        dense_rows[dense_rows["from_step"] == k]["instability"].to_numpy()
        for k in (0, points[-1])
    )
    tickets = table[table["network"] == "ticket"]
    by_density = tickets.groupby("density")["instability"].mean()
    least_stable = tickets[tickets["density"] == by_density.idxmax()]
    return {
        "dense": first,
        "falls with k": first - last,
        "tickets": least_stable["instability"].to_numpy(),
        "matching": gain(search.results(), 0.2107, column=FINAL),
    }


def barrier_from(
    lab: Lab,
    name: str,
    start: State,
    masks: Masks,
    k: int,
    replicate: int,
) -> float:
    """Instability, in percentage points, of copies that see the data in two orders.

    Args:
        lab: where to train.
        name: the name of the copies.
        start: the weights at step k.
        masks: the masks of the copies.
        k: the step that the copies start at.
        replicate: same as in `Lab.train`.
    """
    copies = {
        str(n): Start(weights=start, masks=masks, step=k, replicate=replicate, order=n)
        for n in (1, 2)
    }
    one, other = lab.train_all(name, copies).values()
    network, _ = lab.model(replicate)
    set_masks(network, masks)
    return 100 * instability(network, one.final, other.final, lab.splits.test)


EXPERIMENT = Experiment(
    "linear_mode_connectivity",
    "LeNet ends in one valley of the loss, whatever the order of the data",
    "Frankle et al. 2020, [Linear mode connectivity and the lottery ticket hypothesis]("
    "https://arxiv.org/abs/1912.05671)",
    lenet(
        cpu="99 trainings of 7,328 steps, about 12 minutes on 2 cores",
        paper="165 trainings of 50,000 steps",
        levels=15,
        report=(3, 7, 11, 15),
    ),
    run,
    (
        Claim(
            "The dense LeNet is stable from initialisation (instability below 2 pp)",
            published="stable from init",
            source="section 3",
            value="dense",
            reproduced=STABLE,
            unit="pp",
        ),
        Claim(
            "Copies that separate later are no less stable",
            published="instability falls with k",
            source="section 3",
            value="falls with k",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        Claim(
            "Tickets of LeNet are stable from initialisation (least stable density)",
            published="stable from init",
            source="section 4",
            value="tickets",
            reproduced=STABLE,
            unit="pp",
        ),
        Claim(
            "Tickets of 21 % match the dense network (at most 0.2 pp below it)",
            published="matching",
            source="section 4",
            value="matching",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
    ),
)
