"""The scales that experiments share."""

import dataclasses
from functools import partial
from typing import Any

from keras_lottery import data
from keras_lottery.data import Splits
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import Scale
from keras_lottery.papers.models import Builder, Recipe

EPOCH = 916
"""Steps in an epoch of MNIST: 55,000 images in batches of 60."""
MOMENTUM: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9}
"""A recipe for LeNet-300-100 other than Adam."""
NARROW_STEPS = 4_000
"""Steps of one training of the narrow ResNet."""


def lenet(
    cpu: str,
    paper: str,
    levels: int,
    report: tuple[int, ...] | None = None,
    replicates: int = 3,
    **how: Any,
) -> dict[str, Scale]:
    """Scales of LeNet-300-100: digits for seconds, MNIST for 8 epochs or full length.

    Args:
        cpu, paper: the cost at these scales, in words.
        levels, report: same as in `Scale`; there are two levels at scale smoke.
        replicates: their number at scale cpu.
        how: changes to the recipe. `drops` and `warm_up` are shares of the training.
    """
    recipe = models.recipe("lenet_300_100")
    small = dataclasses.replace(recipe, jit_compile=False, steps_per_execution=1)
    return {
        "smoke": Scale(
            "seconds",
            "digits",
            "lenet_300_100",
            of_length(small, 40, 20, **how),
            replicates=2,
            levels=2,
            is_faithful=False,
        ),
        "cpu": Scale(
            cpu,
            "mnist",
            "lenet_300_100",
            of_length(recipe, 8 * EPOCH, 100, **how),
            replicates=replicates,
            levels=levels,
            report=report,
        ),
        "paper": Scale(
            paper,
            "mnist",
            "lenet_300_100",
            of_length(recipe, recipe.steps, 100, **how),
            replicates=5,
            levels=levels,
            report=report,
        ),
    }


def cifar_10(
    model: str,
    paper: str,
    levels: int,
    report: tuple[int, ...] | None = None,
    smoke: str = "seconds",
    small: Builder | None = None,
    **how: Any,
) -> dict[str, Scale]:
    """Scales of a convolutional network: digits for seconds, CIFAR-10 on a GPU.

    Args:
        model: its name in `models`.
        paper, smoke: the cost at these scales, in words.
        levels, report: same as in `Scale`; there are two levels at scale smoke.
        small: a smaller network of its kind, for scale smoke.
        how: changes to the recipe.
    """
    recipe = dataclasses.replace(models.recipe(model), **how)
    # Digits must not be mirrored.
    short = dataclasses.replace(recipe, steps_per_execution=1, augment=False)
    return {
        "smoke": Scale(
            smoke,
            "digits",
            small or model,
            of_length(short, 10, 5),
            replicates=1,
            levels=2,
            is_faithful=False,
        ),
        "paper": Scale(paper, "cifar10", model, recipe, 5, levels, report),
    }


def small_images() -> Splits:
    """CIFAR-10 in 16x16 pixels, each the mean of 2x2."""
    return data.load("cifar10").averaged(2)


def narrow_resnet(
    cpu: str, levels: int, report: tuple[int, ...] | None = None, **how: Any
) -> Scale:
    """A deep network for scale cpu: a ResNet-8 with 8 filters, on small images.

    Its size, length and weight decay were chosen by measurement, so that Liu et al.'s
    two regimes appear within a minute or two of one core: R_p (p = 20 %) of initial and
    final weights is near 20 % after training at learning rate 0.1, and far above it at
    0.01. Weights decay five times as fast as in the papers, which train ten times as
    long.

    Args:
        cpu: the cost, in words.
        levels, report: same as in `Scale`.
        how: changes to the recipe. `drops` and `warm_up` are shares of the training.
    """
    recipe = dataclasses.replace(
        models.recipe("resnet_20"),
        learning_rate=0.1,
        batch_size=64,
        weight_decay=5e-4,
    )
    return Scale(
        cpu,
        small_images,
        partial(models.resnet, 8, width=8),
        of_length(recipe, NARROW_STEPS, NARROW_STEPS // 8, **how),
        replicates=3,
        levels=levels,
        report=report,
    )


def narrow_vgg(
    cpu: str, levels: int, report: tuple[int, ...] | None = None, **how: Any
) -> Scale:
    """The same for three convolutions with 16, 32 and 64 filters.

    Args:
        cpu, levels, report, how: same as in `narrow_resnet`.
    """
    narrow = partial(models.vgg, (1, 1, 1), 16)
    rates = models.recipe("vgg_19").rates
    scale = narrow_resnet(cpu, levels, report, rates=rates, **how)
    return dataclasses.replace(scale, model=narrow)


def narrow_mobilenet(cpu: str, levels: int, **how: Any) -> Scale:
    """The same for a MobileNetV2 with four blocks, of at most 32 filters.

    Args:
        cpu, levels, how: same as in `narrow_resnet`.
    """
    # Wide layers at full resolution would take most of the time.
    stages = (1, 8, 1, 2), (4, 12, 1, 1), (4, 16, 1, 2), (4, 32, 1, 1)
    narrow = partial(models.mobilenet, stages, 8, 64)
    full = models.recipe("mobilenet_v2")
    how = {"rates": full.rates, "prunable": full.prunable, **how}
    return dataclasses.replace(narrow_resnet(cpu, levels, **how), model=narrow)


def of_length(
    recipe: Recipe,
    steps: int,
    eval_freq: int,
    drops: tuple[float, ...] = (),
    warm_up: float = 0.0,
    **how: Any,
) -> Recipe:
    """A recipe with another length.

    Args:
        recipe: the recipe.
        steps, eval_freq: same as in `Recipe`.
        drops, warm_up: same as in `Recipe`, but as shares of the training.
        how: other changes.
    """
    return dataclasses.replace(
        recipe,
        steps=steps,
        eval_freq=eval_freq,
        drops=tuple(round(share * steps) for share in drops),
        warm_up=round(warm_up * steps),
        **how,
    )
