"""Chen et al.: lottery tickets in a pre-trained BERT, and how they transfer."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from keras_lottery import data
from keras_lottery.data import Splits
from keras_lottery.data.wordnet import LENGTH, MASKED, SPECIAL, mask_words
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import (
    INFINITY,
    Claim,
    Experiment,
    Scale,
    Values,
    effect,
)
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.papers.experiments.measures import FINAL, gain
from keras_lottery.papers.experiments.networks import PreTrained
from keras_lottery.papers.experiments.scales import of_length
from keras_lottery.papers.experiments.training import Start
from keras_lottery.papers.models import Recipe
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.tickets import schedules

MLM = "mlm"
TASKS = ("noun_class", "part_of_speech", "is_a")
ENCODER = ("embeddings", "positions", "norm", "block_*")
"""The pre-trained layers that all tasks share. Each task has a head of its own."""
CONTROLS = ("shuffle", "reinit", "permute_layers")
LEVELS = (5, 7)
"""The levels at which 50 and 70 % of the blocks' weights are pruned."""


def run(lab: Lab) -> Mapping[str, Values]:
    """Pre-trains once, searches on every task, and trains each mask on all others."""
    labs = laboratories(lab)
    searches = {task: search(lab, task) for task, lab in labs.items()}
    measured: dict[str, Values] = {}
    for task, found in searches.items():
        table = lab.compare(task, {task: found}, FINAL)
        for level in LEVELS:
            for other in ("dense", *CONTROLS):
                name = f"{task} over {other} {10 * level}"
                density = 1 - level / 10
                measured[name] = gain(table, density, over=other, column=FINAL)
    return {**measured, **transfers(lab, labs, searches)}


def laboratories(lab: Lab) -> dict[str, Lab]:
    """A lab for each task, whose networks start from the pre-trained weights."""
    texts = glosses() if lab.scale.is_faithful else pixels(lab.splits)
    words = texts[MLM].classes
    size: dict[str, Any] = {}
    if not lab.scale.is_faithful:
        size = {"blocks": 2, "width": 32}
    language = partial(models.bert_small_mlm, **size)
    classifier = partial(models.bert_small, vocabulary=words, **size)
    longest = models.recipe("bert_small_mlm")
    steps = min(12 * lab.recipe.steps, longest.steps)
    recipe = of_length(longest, steps, steps // 2, warm_up=0.05)
    before = lab.with_data(texts[MLM], model=language, recipe=recipe, replicates=1)
    weights = before.train("pre_training").final
    return {
        task: lab.with_data(
            splits,
            model=PreTrained(language if task == MLM else classifier, weights),
            recipe=dataclasses.replace(
                # Chen et al. train masked language models at 2.5 times the rate.
                lab.recipe,
                learning_rate=lab.recipe.learning_rate * (2.5 if task == MLM else 1),
            ),
        )
        for task, splits in texts.items()
    }


def glosses() -> dict[str, Splits]:
    """The text for the language model, and the tasks, from WordNet."""
    return {task: data.load(f"wordnet_{task}") for task in (MLM, *TASKS)}


def pixels(digits: Splits) -> dict[str, Splits]:
    """Stand-ins made of scikit-learn's digits, in which every second pixel is a word.

    They run through the whole experiment, but say nothing about language.
    """
    rng = np.random.default_rng(0)
    arrays: dict[str, dict[str, np.ndarray]] = {task: {} for task in (MLM, *TASKS)}
    for part in ("train", "validation", "test"):
        x, y = getattr(digits, part)
        text = (16 * x.reshape(len(x), -1)[:, ::2]).astype("int32") + SPECIAL
        hidden, words = mask_words(text, MASKED, rng)
        arrays[MLM] |= {f"x_{part}": hidden, f"y_{part}": words}
        for task, labels in zip(TASKS, (y, y // 3, y % 2), strict=True):
            arrays[task] |= {f"x_{part}": text, f"y_{part}": labels}
    classes = dict(zip(arrays, (SPECIAL + 17, 10, 4, 2), strict=True))
    return {
        task: Splits(name=task, input_shape=(LENGTH,), classes=classes[task], **own)
        for task, own in arrays.items()
    }


def search(lab: Lab, task: str) -> LotteryTicketSearch:
    """Finds tickets of a task, pruning a tenth of the blocks' weights each round."""
    levels = lab.scale.levels
    report = [k for k in lab.scale.report or () if k < levels]
    return lab.search(
        f"search_{task}",
        schedule=schedules.linear(0.1, levels),
        allocation="global",
        report_levels=[*report, levels] if report else None,
        controls=CONTROLS,
        pretrained=True if task == MLM else ENCODER,
    )


def transfers(
    lab: Lab, labs: Mapping[str, Lab], searches: Mapping[str, LotteryTicketSearch]
) -> dict[str, Values]:
    """Trains with the masks of each task on the others, from pre-trained weights."""
    import pandas as pd

    level = min(LEVELS[-1], lab.scale.levels)
    rows = []
    for target, other in labs.items():
        starts = {
            f"{source}_{replicate}": Start(
                masks=searches[source].masks(level, replicate), replicate=replicate
            )
            for source in searches
            if source != target
            for replicate in lab.replicates
        }
        for label, trained in other.train_all(f"transfer_{target}", starts).items():
            source, _, replicate = label.rpartition("_")
            accuracy = trained.metrics[FINAL]
            rows.append((source, target, int(replicate), accuracy))
        own = searches[target].results().query("variant == 'ticket'")
        for kind, at in (("dense", 0), (target, level)):
            for row in own[own["level"] == at].itertuples():
                rows.append((kind, target, row.replicate, getattr(row, FINAL)))
    names = ["mask_of", "trained_on", "replicate", "accuracy"]
    table = pd.DataFrame(rows, columns=names)
    means = table.pivot_table("accuracy", "mask_of", "trained_on")
    lab.table("transfer", (100 * means).round(2).reset_index())
    by = table.set_index(names[:3])["accuracy"].sort_index()

    def points(source: str, target: str) -> np.ndarray:
        return 100 * by[source, target].to_numpy()

    over_dense, over_own, over_others = [], [], []
    for target in TASKS:
        others = [points(task, target) for task in TASKS if task != target]
        over_dense.append(points(MLM, target) - points("dense", target))
        over_own.append(points(MLM, target) - points(target, target))
        over_others.append(points(MLM, target) - np.mean(others, axis=0))
    return {
        "mlm transfers over dense": np.mean(over_dense, axis=0),
        "mlm transfers over own": np.mean(over_own, axis=0),
        "mlm transfers over others": np.mean(over_others, axis=0),
    }


def _matching(task: str, published: str) -> Claim:
    return Claim(
        f"At 50 % sparsity, the ticket of {task} matches the dense network",
        published,
        source="table 2",
        value=f"{task} over dense 50",
        reproduced=(-1.0, INFINITY),
        unit="pp",
    )


def _over(control: str, words: str, size: float, published: str) -> tuple[Claim, ...]:
    return tuple(
        effect(
            f"At 70 % sparsity, the ticket of {task} beats {words}",
            published,
            source="table 2",
            value=f"{task} over {control} 70",
            size=size,
            unit="pp",
        )
        for task in TASKS
    )


def _scale(cost: str, steps: int, eval_freq: int, **how: object) -> Scale:
    recipe: Recipe = of_length(models.recipe("bert_small"), steps, eval_freq)
    arguments: dict = {"data": "wordnet_mlm", "model": "bert_small", "recipe": recipe}
    return Scale(cost, **{**arguments, **how})


EXPERIMENT = Experiment(
    "bert_tickets",
    "Tickets in a pre-trained BERT, and the tasks that they transfer to",
    "Chen et al. 2020, [The lottery ticket hypothesis for pre-trained BERT networks]("
    "https://arxiv.org/abs/2007.12223); here with a BERT of width 128 instead of 768, "
    "and WordNet's glosses instead of GLUE",
    {
        "smoke": _scale(
            "a minute",
            20,
            10,
            data="digits",
            replicates=1,
            levels=2,
            is_faithful=False,
        ),
        "cpu": _scale(
            "a pre-training of 6,000 steps and 204 trainings of 500, about an hour on "
            "2 cores",
            500,
            250,
            replicates=3,
            levels=7,
            report=LEVELS,
        ),
        "paper": _scale(
            "a pre-training of 20,000 steps and 800 trainings of 6,000, hours on a GPU",
            6_000,
            1_000,
            replicates=5,
            levels=9,
        ),
    },
    run,
    (
        _matching("noun_class", "QNLI 70 %, MNLI 70 %, SST-2 60 % within a deviation"),
        _matching("part_of_speech", "QQP 90 %, CoLA 50 % within a deviation"),
        _matching("is_a", "RTE 60 %, MRPC 50 % within a deviation"),
        _matching(MLM, "70 % within a deviation"),
        *_over("shuffle", "a random mask", 0, "88.9 against 61.9 % (QNLI)"),
        *_over("reinit", "its mask on random weights", 0, "88.9 against 60.5 % (QNLI)"),
        *_over("permute_layers", "permuted layers", 0, "88.9 against 62.0 % (QNLI)"),
        Claim(
            "With the MLM mask of 70 % sparsity, accuracy on the tasks is at most 3 "
            "points below the dense network's",
            "2.0 points below it in the mean of ten tasks",
            source="figure 2",
            value="mlm transfers over dense",
            reproduced=(-3.0, INFINITY),
            unit="pp",
        ),
        Claim(
            "The MLM mask of 70 % sparsity is no worse on the tasks than their own",
            "at least as good on ten of ten tasks",
            source="figure 2",
            value="mlm transfers over own",
            reproduced=(-0.5, INFINITY),
            unit="pp",
        ),
        Claim(
            "The MLM mask transfers no worse than those of other tasks",
            "better than all others on eight of ten tasks",
            source="figure 2",
            value="mlm transfers over others",
            reproduced=(-0.5, INFINITY),
            unit="pp",
        ),
    ),
)
