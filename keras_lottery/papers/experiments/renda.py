"""Renda et al.: fine-tuning, weight rewinding, and learning-rate rewinding."""

from collections.abc import Mapping

from keras_lottery.papers.experiments.experiment import Experiment, Values, effect
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.rewinds import GAINS, SMALLER, WORDS, ways
from keras_lottery.papers.experiments.scales import EPOCH, MOMENTUM, lenet


def run(lab: Lab) -> Mapping[str, Values]:
    """Runs the same search with three ways to continue after pruning."""
    k = min(EPOCH, lab.recipe.steps) // 2
    searches = {
        way: lab.search(way, rate=0.5, rewind=rewind, rewind_to=k)
        for way, rewind in ways(lab.recipe.steps - k).items()
    }
    table = lab.compare("accuracy", searches, FINAL)
    return {
        f"{way} {percent}": gain(table, percent / 100, way, "fine_tune", FINAL)
        for way, gains in GAINS.items()
        for percent in gains
    }


EXPERIMENT = Experiment(
    "renda",
    "Rewinding versus fine-tuning after pruning",
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
            f"At {percent} %, {WORDS[way]} beats fine-tuning",
            published=f"{points} pp (ResNet-56, {SMALLER[percent]} times smaller)",
            source="the authors' data",
            value=f"{way} {percent}",
            size=0,
            unit="pp",
        )
        for way, gains in GAINS.items()
        for percent, points in gains.items()
    ),
)
