"""The papers' experiments, each one command, compared with the published figures.

An experiment is a file with an `Experiment`: its scales, a function that trains in a
`Lab` and returns measured values, and the paper's claims. A new experiment needs such a
file, and a line in `EXPERIMENTS`.
"""

from keras_lottery.checks import did_you_mean
from keras_lottery.papers.experiments import (
    admm,
    bert_tickets,
    conv_nets,
    deconstructing,
    dropnet,
    early_phase,
    fpgm,
    frankle_carbin,
    hrank,
    layers,
    lenet_recipes,
    linear_mode_connectivity,
    mask_actions,
    missing_the_mark,
    one_constant,
    overfitting_gap,
    overfitting_resnet,
    renda,
    renda_resnet,
    resnet_18,
    rethinking,
    sequential_reinit,
    small_dense,
    ssl,
    stabilizing,
    vgg_19,
    weight_correlation,
    weight_correlation_cifar,
    weights_of_tickets,
)
from keras_lottery.papers.experiments.experiment import Claim, Experiment, Scale
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.reproduce import reproduce

__all__ = [
    "EXPERIMENTS",
    "Claim",
    "Experiment",
    "Lab",
    "Scale",
    "get",
    "reproduce",
]

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        frankle_carbin.EXPERIMENT,
        lenet_recipes.EXPERIMENT,
        *conv_nets.EXPERIMENTS,
        resnet_18.EXPERIMENT,
        vgg_19.EXPERIMENT,
        weights_of_tickets.EXPERIMENT,
        weight_correlation.EXPERIMENT,
        *weight_correlation_cifar.EXPERIMENTS,
        deconstructing.EXPERIMENT,
        mask_actions.EXPERIMENT,
        layers.EXPERIMENT,
        linear_mode_connectivity.EXPERIMENT,
        *stabilizing.EXPERIMENTS,
        early_phase.EXPERIMENT,
        renda.EXPERIMENT,
        *renda_resnet.EXPERIMENTS,
        missing_the_mark.EXPERIMENT,
        overfitting_gap.EXPERIMENT,
        overfitting_resnet.EXPERIMENT,
        one_constant.EXPERIMENT,
        sequential_reinit.EXPERIMENT,
        small_dense.EXPERIMENT,
        *admm.EXPERIMENTS,
        ssl.EXPERIMENT,
        hrank.EXPERIMENT,
        fpgm.EXPERIMENT,
        rethinking.EXPERIMENT,
        dropnet.EXPERIMENT,
        bert_tickets.EXPERIMENT,
    )
}
"""The experiments by name, in the order of `keras-lottery reproduce --list`."""


def get(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        ValueError: if there is no such experiment.

    >>> get("layers").title
    'Which layers a trained network can do without'
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"Expected the name of an experiment, one of {sorted(EXPERIMENTS)}. "
            f"Received: name={name!r}. {did_you_mean(name, EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]
