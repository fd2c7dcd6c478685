"""Renda et al.: fine-tuning, weight rewinding, and learning-rate rewinding."""

from collections.abc import Mapping

from keras_lottery.experiments.experiment import Experiment, Values, effect
from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import FINAL, gain
from keras_lottery.experiments.rewinds import compare_rewinds
from keras_lottery.experiments.scales import EPOCH, MOMENTUM, lenet

# By the density that is compared, in %: how many times smaller ResNet-56 was, and the
# percentage points that it gained over fine-tuning.
SMALLER = {25: 3.8, 13: 9.3, 6: 18.2, 3: 44.4}
PUBLISHED = {
    "weights": {25: 0.86, 13: 1.59, 6: 2.67, 3: 3.69},
    "learning_rate": {25: 0.97, 13: 1.61, 6: 2.85, 3: 3.93},
}


def run(lab: Lab) -> Mapping[str, Values]:
    """LeNet, rewound to the middle of the first epoch."""
    table = compare_rewinds(lab, min(EPOCH, lab.recipe.steps) // 2, rate=0.5)
    return {
        f"{way} {percent}": gain(table, percent / 100, way, "ticket", FINAL)
        for way, figures in PUBLISHED.items()
        for percent in figures
    }


EXPERIMENT = Experiment(
    "renda",
    "Rewinding against fine-tuning after pruning",
    "Renda, Frankle & Carbin 2020, [Comparing rewinding and fine-tuning in neural "
    "network pruning](https://arxiv.org/abs/2003.02389)",
    lenet(
        cpu="54 trainings of 7,328 steps, about 6 minutes on 2 cores",
        paper="90 trainings of 50,000 steps",
        levels=5,
        drops=(91 / 182, 136 / 182),
        **MOMENTUM,
    ),
    run,
    tuple(
        effect(
            f"At {percent} % rewinding the {way.replace('_', ' ')} beats fine-tuning",
            published=f"{figure} pp (ResNet-56, {SMALLER[percent]} times smaller)",
            source="the authors' data",
            value=f"{way} {percent}",
            size=0,
            unit="pp",
        )
        for way, figures in PUBLISHED.items()
        for percent, figure in figures.items()
    ),
)
