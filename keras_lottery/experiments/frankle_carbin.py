"""Frankle & Carbin: LeNet-300-100 by all three ways of finding tickets."""

from collections.abc import Mapping

from keras_lottery.experiments.experiment import (
    ABOVE_ZERO,
    INFINITY,
    Claim,
    Experiment,
    Values,
    effect,
)
from keras_lottery.experiments.lab import Lab
from keras_lottery.experiments.measures import STOP, at, gain, sooner
from keras_lottery.experiments.scales import lenet
from keras_lottery.rewind import FineTune, Rewind, from_rewind_point

PAPER = (
    "Frankle & Carbin 2019, [The lottery ticket hypothesis: finding sparse, trainable "
    "neural networks](https://arxiv.org/abs/1803.03635)"
)
# Between two levels the dense network's last weights only pass through a step that
# does not move them: all masks come from one training.
ONE_SHOT = Rewind(from_rewind_point, trunk=FineTune(steps=1, learning_rate=0.0))


def run(lab: Lab) -> Mapping[str, Values]:
    """Iterative with resetting, one-shot, and iterative with continued training."""
    trials = 3 if lab.scale.replicates > 3 else 1
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
            "At 21.1 % of the weights the ticket stops sooner than the dense network",
            *("38 % sooner", "section 2", "sooner at 21 %", (25, INFINITY), "%"),
            sign=ABOVE_ZERO,
        ),
        effect(
            "At 13.5 % it is more accurate than the dense network",
            *("more than 0.3 pp", "section 2", "gain at 13.5 %", 0.3, "pp"),
        ),
        Claim(
            "At 3.6 % it is as accurate",
            *("as accurate", "section 2", "gain at 3.6 %", (-0.2, INFINITY), "pp"),
        ),
        Claim(
            "At 2.9 % it is less accurate",
            *("from 2.9 % on", "section 2", "gain at 2.9 %", (-INFINITY, 0), "pp"),
            sign=(-INFINITY, 0),
        ),
        Claim(
            "Reinitialised, it is less accurate than the dense network at 21.1 %",
            *("from 21.1 % on", "section 2", "reinit", (-INFINITY, 0), "pp"),
            sign=(-INFINITY, 0),
        ),
        Claim(
            "At 21.1 % it learns faster than its reinitialisation",
            *(
                "2.51 times",
                "section 2",
                "speed over reinit",
                (1.75, INFINITY),
                "times",
            ),
            sign=(1, INFINITY),
        ),
        effect(
            "At 21.1 % it is more accurate than its reinitialisation",
            *("0.5 pp", "section 2", "gain over reinit", 0.5, "pp"),
        ),
        effect(
            "At 21.1 % its reinitialisation is more accurate than random masks",
            *("above", "appendix E", "reinit over random", 0, "pp"),
        ),
        Claim(
            "At 2.9 % it still fits the training data",
            *("about 100 % (to 2 %)", "appendix D", "train accuracy"),
            *((99.5, 100), "%"),
        ),
        effect(
            "One-shot at 13.5 % is more accurate than the dense network",
            *("for 95.0 to 5.17 %", "section 2", "one-shot gain", 0, "pp"),
        ),
        effect(
            "One-shot at 21.1 % stops sooner than the dense network",
            *("for 67.5 to 17.6 %", "section 2", "one-shot sooner", 0, "%"),
        ),
        effect(
            "At 3.6 % one-shot is below iterative pruning",
            *("below", "figure 4", "iterative over one-shot", 0, "pp"),
        ),
        effect(
            "At 3.6 % resetting is above continued training",
            *("above", "appendix B", "resetting over continued", 0, "pp"),
        ),
    ),
)
