"""Frankle & Carbin: tickets of LeNet-300-100, found in all three ways."""

from collections.abc import Mapping

from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    ABOVE_ZERO,
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import STOP, at, gain, sooner
from keras_lottery.papers.experiments.scales import lenet
from keras_lottery.tickets.rewind import FineTune, Rewind, from_rewind_point

PAPER = (
    "Frankle & Carbin 2019, [The lottery ticket hypothesis: finding sparse, trainable "
    "neural networks](https://arxiv.org/abs/1803.03635)"
)
# All masks come from one training: between two levels, the trained weights of the
# dense network only pass through a step that does not move them.
ONE_SHOT = Rewind(from_rewind_point, finder=FineTune(steps=1, learning_rate=0.0))


def run(lab: Lab) -> Mapping[str, Values]:
    """Prunes iteratively with resetting, in one shot, and with continued training."""
    # At the paper's length there are three trials of each control, as in the paper.
    trials = 3 if lab.recipe.steps == models.recipe("lenet_300_100").steps else 1
    controls = {"reinit": trials, "random": trials}
    table = lab.compare(
        "accuracy",
        {
            "iterative": lab.search("iterative", controls=controls),
            "one_shot": lab.search(
                "one_shot", rewind=ONE_SHOT, controls={"reinit": trials}
            ),
            "continued": lab.search("continued", rewind="continue"),
        },
    )
    return {
        "sooner at 21 %": sooner(table, 0.2107),
        "gain at 13.5 %": gain(table, 0.1352),
        "gain at 3.6 %": gain(table, 0.0358),
        "gain at 2.9 %": gain(table, 0.0287),
        "reinit": gain(table, 0.2107, "reinit"),
        "reinit over random": gain(table, 0.2107, "reinit", over="random"),
        "speed over reinit": at(table, 0.2107, STOP, "reinit")
        / at(table, 0.2107, STOP),
        "gain over reinit": gain(table, 0.2107, over="reinit"),
        "train accuracy": 100 * at(table, 0.0287, "final_train_accuracy"),
        "one-shot gain": gain(table, 0.1352, "one_shot"),
        "one-shot sooner": sooner(table, 0.2107, "one_shot"),
        "iterative over one-shot": gain(table, 0.0358, over="one_shot"),
        "resetting over continued": gain(table, 0.0358, over="continued"),
    }


EXPERIMENT = Experiment(
    "frankle_carbin",
    "Winning tickets of LeNet-300-100, found in three ways",
    PAPER,
    lenet(
        cpu="320 trainings of 7,328 steps, about 35 minutes on 2 cores",
        paper="500 trainings of 50,000 steps",
        levels=16,
        report=(3, 7, 9, 12, 15, 16),
        replicates=5,
    ),
    run,
    (
        Claim(
            "At 21.1 % of the weights, tickets stop sooner than the dense network",
            published="38 % sooner",
            source="section 2",
            value="sooner at 21 %",
            reproduced=(25, INFINITY),
            unit="%",
            sign=ABOVE_ZERO,
        ),
        effect(
            "At 13.5 %, tickets are more accurate than the dense network",
            published="more than 0.3 pp",
            source="section 2",
            value="gain at 13.5 %",
            size=0.3,
            unit="pp",
        ),
        Claim(
            "At 3.6 %, tickets are as accurate as the dense network",
            published="as accurate",
            source="section 2",
            value="gain at 3.6 %",
            reproduced=(-0.2, INFINITY),
            unit="pp",
        ),
        Claim(
            "At 2.9 %, tickets are less accurate than the dense network",
            published="at 2.9 % and below",
            source="section 2",
            value="gain at 2.9 %",
            reproduced=(-INFINITY, 0),
            unit="pp",
            sign=(-INFINITY, 0),
        ),
        Claim(
            "At 21.1 %, reinitialised tickets are less accurate than the dense network",
            published="at 21.1 % and below",
            source="section 2",
            value="reinit",
            reproduced=(-INFINITY, 0),
            unit="pp",
            sign=(-INFINITY, 0),
        ),
        Claim(
            "At 21.1 %, tickets learn faster than when reinitialised",
            published="2.51 times",
            source="section 2",
            value="speed over reinit",
            reproduced=(1.75, INFINITY),
            unit="times",
            sign=(1, INFINITY),
        ),
        effect(
            "At 21.1 %, tickets are more accurate than when reinitialised",
            published="0.5 pp",
            source="section 2",
            value="gain over reinit",
            size=0.5,
            unit="pp",
        ),
        effect(
            "At 21.1 %, reinitialised tickets are more accurate than random masks",
            published="more accurate",
            source="appendix E",
            value="reinit over random",
            size=0,
            unit="pp",
        ),
        Claim(
            "At 2.9 %, tickets still fit the training data",
            published="about 100 % (down to a density of 2 %)",
            source="appendix D",
            value="train accuracy",
            reproduced=(99.5, 100),
            unit="%",
        ),
        effect(
            "At 13.5 %, one-shot tickets are more accurate than the dense network",
            published="from 95.0 to 5.17 %",
            source="section 2",
            value="one-shot gain",
            size=0,
            unit="pp",
        ),
        effect(
            "At 21.1 %, one-shot tickets stop sooner than the dense network",
            published="from 67.5 to 17.6 %",
            source="section 2",
            value="one-shot sooner",
            size=0,
            unit="%",
        ),
        effect(
            "At 3.6 %, one-shot pruning is less accurate than iterative pruning",
            published="less accurate",
            source="figure 4",
            value="iterative over one-shot",
            size=0,
            unit="pp",
        ),
        effect(
            "At 3.6 %, resetting is more accurate than continued training",
            published="more accurate",
            source="appendix B",
            value="resetting over continued",
            size=0,
            unit="pp",
        ),
    ),
)
