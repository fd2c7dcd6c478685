"""Conv-2, Conv-4 and Conv-6: small variants of VGG for CIFAR-10."""

import keras
from keras import layers

from keras_lottery.papers.models.initializers import glorot_normals
from keras_lottery.papers.models.recipe import Recipe, check_images

CONV_2 = Recipe(
    optimizer="adam",
    learning_rate=2e-4,
    batch_size=60,
    steps=20_000,
    rates={"conv_*": 0.1, "hidden_*": 0.2, "output": 0.1},
    steps_per_execution=10,
)
CONV_4 = Recipe(
    optimizer="adam",
    learning_rate=3e-4,
    batch_size=60,
    steps=25_000,
    rates={"conv_*": 0.1, "hidden_*": 0.2, "output": 0.1},
    steps_per_execution=10,
)
CONV_6 = Recipe(
    optimizer="adam",
    learning_rate=3e-4,
    batch_size=60,
    steps=30_000,
    rates={"conv_*": 0.15, "hidden_*": 0.2, "output": 0.1},
    steps_per_execution=10,
)


def conv_2(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """Conv-2: two convolutions of 64 filters; 4.3 million parameters on CIFAR-10.

    Args:
        input_shape: Shape of one image.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.

    Returns:
        An uncompiled model that outputs logits.

    Reference:
        Frankle & Carbin, [The Lottery Ticket Hypothesis](
        https://arxiv.org/abs/1803.03635), 2019, Figure 2.

    Example:

    >>> conv_2(seed=0).count_params()
    4301642
    """
    return _vgg([64], input_shape, classes, seed)


def conv_4(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """Conv-4: Conv-2 and two convolutions of 128 filters; 2.4 million parameters.

    Arguments, result and reference are the same as in `conv_2`.

    Example:

    >>> conv_4(seed=0).count_params()
    2425930
    """
    return _vgg([64, 128], input_shape, classes, seed)


def conv_6(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """Conv-6: Conv-4 and two convolutions of 256 filters; 2.3 million parameters.

    Arguments, result and reference are the same as in `conv_2`. The paper prints 1.7
    million weights, but its own layers add up to more: the 1.1 million that it gives
    for the convolutions are right, and the dense layers have as many again.

    Example:

    >>> conv_6(seed=0).count_params()
    2262602
    """
    return _vgg([64, 128, 256], input_shape, classes, seed)


def _vgg(
    filters: list[int], input_shape: tuple[int, ...], classes: int, seed: int | None
) -> keras.Model:
    """Two 3x3 convolutions and a pooling for each of `filters`, then dense layers."""
    check_images(input_shape, classes)
    glorot = glorot_normals(seed)
    stack: list[layers.Layer] = []
    for block, width in enumerate(filters, start=1):
        for index in (2 * block - 1, 2 * block):
            stack.append(
                layers.Conv2D(
                    width,
                    3,
                    padding="same",
                    activation="relu",
                    kernel_initializer=next(glorot),
                    name=f"conv_{index}",
                )
            )
        stack.append(layers.MaxPooling2D(name=f"pool_{block}"))
    return keras.Sequential(
        [
            layers.Input(input_shape),
            *stack,
            layers.Flatten(name="flatten"),
            layers.Dense(256, "relu", kernel_initializer=next(glorot), name="hidden_1"),
            layers.Dense(256, "relu", kernel_initializer=next(glorot), name="hidden_2"),
            layers.Dense(classes, kernel_initializer=next(glorot), name="output"),
        ],
        name=f"conv_{2 * len(filters)}",
    )
