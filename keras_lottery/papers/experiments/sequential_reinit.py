"""An open question: is criticality a good order for resetting or pruning layers?"""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_lottery.engines import objective as objectives
from keras_lottery.keras_bridge.layers import State, get_masks, set_state
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments.experiment import (
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.layers import EXPERIMENT as LAYERS
from keras_lottery.papers.experiments.layers import WIDE
from keras_lottery.papers.experiments.measures import ACCURACY, LABELS, at
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.papers.experiments.training import Start, Trained
from keras_lottery.study.analysis import layer_criticality
from keras_lottery.study.analysis.criticality import layer_groups
from keras_lottery.study.analysis.evaluation import evaluate_states
from keras_lottery.tickets.allocation import (
    Function,
    Global,
    Scores,
    Uniform,
    keep_by_layer,
    kept_after,
)

SPARSITIES = (0.8, 0.9, 0.95)
OTHERS: dict[str, Function] = {"uniform": Uniform(), "global": Global(floor=0)}


def by_place(order: Sequence[str]) -> Function:
    """An allocation by order: the later a layer in the order, the denser it is.

    >>> masks = Masks.dense({"a/kernel": (10, 10), "b/kernel": (10, 10)})
    >>> scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    >>> pruned = by_place(["b", "a"])(scores, masks, sparsity=0.7)
    >>> {name: int(mask.sum()) for name, mask in pruned.items()}
    {'a/kernel': 40, 'b/kernel': 20}
    """

    def allocate(scores: Scores, masks: Masks, sparsity: float) -> Masks:
        parts = {
            f"{layer}/kernel": place * masks[f"{layer}/kernel"].size
            for place, layer in enumerate(order, start=1)
        }
        keep = kept_after(masks, sparsity)
        shares = {n: keep * part / sum(parts.values()) for n, part in parts.items()}
        return keep_by_layer(scores, masks, keep, shares)

    return allocate


def run(lab: Lab) -> Mapping[str, Values]:
    """Resets layers one after another; prunes by criticality, and trains again."""
    import pandas as pd

    put_back, pruned = [], []
    starts = {str(r): Start(replicate=r) for r in lab.replicates}
    networks = lab.train_all("dense", starts, model=WIDE)
    for replicate, dense in zip(lab.replicates, networks.values(), strict=True):
        model, _ = lab.model(replicate, model=WIDE)
        set_state(model, dense.final)
        # The order comes from validation data, the accuracies from test data.
        table = layer_criticality(
            model, {0: dense.states[0]}, lab.splits.validation, replicates=0
        )
        order = table.sort_values("drop", kind="stable")["layer"].to_list()
        for first, layers in (("least", order), ("most", order[::-1])):
            states = put_back_in(layers, dense, layer_groups(model))
            measured = evaluate_states(
                model, states, lab.splits.test, objectives.ACCURACY
            )
            for count, (_, accuracy) in enumerate(measured):
                last = layers[count - 1] if count else ""
                put_back.append((first, count, last, replicate, 100 * accuracy))
        scores = {name: np.abs(dense.final[name]) for name in get_masks(model)}
        ways = {**OTHERS, "criticality": by_place(order)}
        which = {f"{w}_{100 * s:g}": (w, s) for w in ways for s in SPARSITIES}
        starts = {
            label: Start(
                weights=dense.states[0],
                masks=ways[way](scores, get_masks(model), sparsity),
                replicate=replicate,
            )
            for label, (way, sparsity) in which.items()
        }
        trained = lab.train_all(f"pruned_{replicate}", starts, model=WIDE)
        for label, (way, sparsity) in which.items():
            accuracy = 100 * trained[label].metrics[ACCURACY]
            pruned.append((way, 1 - sparsity, replicate, accuracy))
    names = ["first", "layers", "last", "replicate", "accuracy"]
    back = pd.DataFrame(put_back, columns=names)
    lab.table("put_back", back)
    title = "the first to go back"
    drawn = back.assign(**{title: back["first"] + " critical"})
    label = "test accuracy (%)"
    lab.figure(
        "put_back",
        lines(drawn, "layers", "accuracy", label, title, None, "layers put back"),
    )
    names = ["variant", "density", "replicate", "accuracy"]
    tickets = pd.DataFrame(pruned, columns=names)
    lab.table("pruned", tickets)
    label = LABELS[ACCURACY]
    lab.figure("pruned", lines(tickets, "density", "accuracy", label, "variant"))
    left = back.pivot_table("accuracy", ["first", "layers"], "replicate")
    own, *others = (
        at(tickets, 0.1, "accuracy", way) for way in ("criticality", *OTHERS)
    )
    half = max(back["layers"]) // 2
    return {
        "order": (left.loc["least", half] - left.loc["most", half]).to_numpy(),
        "lost": (left.loc["least", 0] - left.loc["least", half]).to_numpy(),
        **{
            f"over {way}": own - other
            for way, other in zip(OTHERS, others, strict=True)
        },
    }


def put_back_in(
    order: Sequence[str], trained: Trained, groups: Mapping[str, Sequence[str]]
) -> list[State]:
    """States of a trained network with none, one, two and finally all layers reset.

    Args:
        order: the order in which layers return to their initial weights.
        trained: the training.
        groups: names of the variables of each layer.
    """
    states = [trained.final]
    for layer in order:
        back = {name: trained.states[0][name] for name in groups[layer]}
        states.append({**states[-1], **back})
    return states


EXPERIMENT = Experiment(
    "sequential_reinit",
    "Resetting and pruning layers in the order of their criticality",
    f"An open question; criticality is defined as in {LAYERS.paper}",
    lenet(
        cpu="30 trainings of 7,328 steps, about 3 minutes on 2 cores",
        paper="50 trainings of 50,000 steps",
        levels=1,
    ),
    run,
    (
        effect(
            "Resetting the less critical half of the layers leaves more accuracy than "
            "resetting the more critical half",
            published="open",
            source="no published figure",
            value="order",
            size=0,
            unit="pp",
        ),
        Claim(
            "Resetting the less critical half of the layers costs little accuracy",
            published="open",
            source="no published figure",
            value="lost",
            reproduced=(-1, 5),
            unit="pp",
        ),
        *(
            effect(
                f"At 10 %, pruning less critical layers more beats {way} pruning",
                published="open",
                source="no published figure",
                value=f"over {way}",
                size=0,
                unit="pp",
            )
            for way in OTHERS
        ),
    ),
)
