"""VGG with batch normalisation for CIFAR-10."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_lottery import checks
from keras_lottery.papers.models.augment import augmentation
from keras_lottery.papers.models.initializers import glorot_normals
from keras_lottery.papers.models.normalization import normalization
from keras_lottery.papers.models.recipe import check_images


def vgg(
    blocks: Sequence[int],
    width: int = 64,
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """Blocks of 3x3 convolutions with pooling between them, then one dense layer.

    Args:
        blocks: Convolutions in each block.
        width: Filters in the first block; they double in each, up to eight times.
        input_shape: Shape of one image.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.
        augment: Whether training moves images by up to an eighth, and mirrors them.

    Returns:
        An uncompiled model that outputs logits.

    Reference:
        Simonyan & Zisserman 2015, [Very deep convolutional networks](
        https://arxiv.org/abs/1409.1556). The version for CIFAR-10, with batch
        normalisation, is that of Frankle & Carbin 2019.

    Example:

    >>> vgg((1, 1), width=4, input_shape=(8, 8, 1)).count_params()
    462
    """
    form = "numbers of convolutions, at least one"
    for count in checks.sequence("blocks", blocks, form, 1):
        checks.count("blocks", count, 1)
    checks.count("width", width, 1)
    checks.flag("augment", augment)
    check_images(input_shape, classes)
    glorot = glorot_normals(seed)
    stack: list[layers.Layer] = augmentation(seed) if augment else []
    index = 0
    for block, count in enumerate(blocks):
        if block:
            stack.append(layers.MaxPooling2D(padding="same", name=f"pool_{block}"))
        for _ in range(count):
            index += 1
            stack += [
                layers.Conv2D(
                    width * min(2**block, 8),
                    3,
                    padding="same",
                    use_bias=False,
                    kernel_initializer=next(glorot),
                    name=f"conv_{index}",
                ),
                normalization(f"norm_{index}"),
                layers.ReLU(name=f"relu_{index}"),
            ]
    return keras.Sequential(
        [
            layers.Input(input_shape),
            *stack,
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(classes, kernel_initializer=next(glorot), name="output"),
        ],
        name=f"vgg_{sum(blocks) + 3}",
    )


def vgg_19(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """VGG-19: sixteen convolutions; 20 million parameters.

    Arguments, result and reference are the same as in `vgg`.

    Example:

    >>> vgg_19(seed=0).count_params()
    20046026
    """
    return vgg((2, 2, 4, 4, 4), 64, input_shape, classes, seed, augment)


def vgg_11(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """VGG-11: eight convolutions; 9.2 million parameters.

    Arguments, result and reference are the same as in `vgg`; the recipe is that of Liu
    et al. 2021, [Lottery ticket preserves weight correlation](
    https://arxiv.org/abs/2102.11068).
    """
    return vgg((1, 1, 2, 2, 2), 64, input_shape, classes, seed, augment)
