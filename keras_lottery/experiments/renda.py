"""Renda et al.: fine-tuning, weight rewinding, and learning-rate rewinding."""

from collections.abc import Mapping

from keras_lottery.experiments.experiment import Experiment, Values, effect
from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import FINAL, gain
from keras_lottery.experiments.scales import EPOCH, MOMENTUM, lenet
from keras_lottery.rewind import FineTune, Rewind

# By the density that is compared, in %: how many times smaller ResNet-56 was, and the
# percentage points that it gained over fine-tuning.
SMALLER = {25: 3.8, 13: 9.3, 6: 18.2, 3: 44.4}
PUBLISHED = {
    "weights": {25: 0.86, 13: 1.59, 6: 2.67, 3: 3.69},
    "learning_rate": {25: 0.97, 13: 1.61, 6: 2.85, 3: 3.93},
}


def run(lab: Lab) -> Mapping[str, Values]:
    """The same search three times, each with its own way to go on after pruning."""
    k = min(EPOCH, lab.recipe.steps) // 2
    tuned = Rewind(FineTune(lab.recipe.steps - k))  # for as long as the others
    ways: dict[str, str | Rewind] = {"fine_tune": tuned, **{w: w for w in PUBLISHED}}
    searches = {
        way: lab.search(way, rate=0.5, rewind=rewind, rewind_to=k)
        for way, rewind in ways.items()
    }
    table = lab.compare("accuracy", searches, FINAL)
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
            f"{figure} pp (ResNet-56, {SMALLER[percent]} times smaller)",
            *("the authors' data", f"{way} {percent}", figure, "pp"),
        )
        for way, figures in PUBLISHED.items()
        for percent, figure in figures.items()
    ),
)
