"""MobileNetV2 for CIFAR-10."""

from collections.abc import Iterator, Sequence

import keras
from keras import layers

from keras_lottery import checks
from keras_lottery.papers.models.augment import augmentation
from keras_lottery.papers.models.initializers import glorot_normals
from keras_lottery.papers.models.normalization import normalization
from keras_lottery.papers.models.recipe import check_images

# Expansion, filters, blocks, stride of the first block: Sandler et al. 2018, table 2,
# except that the stem and the stage of 24 filters have a stride of 2 there.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet(
    stages: Sequence[tuple[int, int, int, int]],
    stem: int = 32,
    head: int = 1280,
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """A MobileNetV2 of any size: inverted residual blocks in stages.

    Args:
        stages: For each stage, the expansion within a block, the filters, the number of
            blocks, and the stride of the first one.
        stem: Filters of the first convolution.
        head: Filters of the last convolution.
        input_shape: Shape of one image.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.
        augment: Whether training moves images by up to an eighth, and mirrors them.

    Returns:
        An uncompiled model that outputs logits.

    Raises:
        ValueError: if there are no stages, or a number is less than one.

    Reference:
        Sandler et al., [MobileNetV2](https://arxiv.org/abs/1801.04381), 2018, table 2.

    Example:

    >>> small = mobilenet([(1, 4, 1, 1), (2, 8, 1, 2)], 4, 16, (8, 8, 1), seed=0)
    >>> small.name, small.count_params()
    ('mobilenet_2_stem_4', 762)
    """
    form = "(expansion, filters, blocks, stride) for each stage, at least one"
    for stage in checks.sequence("stages", stages, form, 1):
        if not isinstance(stage, tuple | list) or len(stage) != 4:
            checks.refuse("stages", form, stages)
        for number in stage:
            checks.count("stages", number, 1)
    checks.count("stem", stem, 1)
    checks.count("head", head, 1)
    checks.flag("augment", augment)
    check_images(input_shape, classes)
    glorot = glorot_normals(seed)
    inputs = x = keras.Input(input_shape)
    for layer in augmentation(seed) if augment else ():
        x = layer(x)
    x = _rectified(_convolved(x, stem, 3, "stem", glorot), "stem")
    width, index = stem, 0
    for expansion, filters, blocks, first in stages:
        for block in range(blocks):
            index += 1
            strides = 1 if block else first
            y = x
            if expansion > 1:
                name = f"expand_{index}"
                y = _convolved(y, expansion * width, 1, name, glorot)
                y = _rectified(y, name)
            name = f"depthwise_{index}"
            y = layers.DepthwiseConv2D(
                3,
                strides,
                padding="same",
                use_bias=False,
                depthwise_initializer=next(glorot),
                name=name,
            )(y)
            y = normalization(f"norm_{name}")(y)
            y = _rectified(y, name)
            y = _convolved(y, filters, 1, f"project_{index}", glorot)
            if strides == 1 and width == filters:
                y = layers.Add(name=f"add_{index}")([x, y])
            x, width = y, filters
    x = _rectified(_convolved(x, head, 1, "head", glorot), "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, kernel_initializer=next(glorot), name="output")(x)
    return keras.Model(inputs, outputs, name=f"mobilenet_{index}_stem_{stem}")


def mobilenet_v2(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """MobileNetV2 for CIFAR-10: 17 blocks; 2,236,682 trained parameters.

    The stem and the stage of 24 filters keep the size of the image; in the original
    network, for larger images, they halve it.

    Arguments, result and reference are the same as in `mobilenet`; the recipe is that
    of Liu et al. 2021, [Lottery ticket preserves weight correlation](
    https://arxiv.org/abs/2102.11068).
    """
    model = mobilenet(_STAGES, 32, 1280, input_shape, classes, seed, augment)
    return keras.Model(model.input, model.output, name="mobilenet_v2")


def _convolved(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    name: str,
    glorot: Iterator[keras.initializers.Initializer],
) -> keras.KerasTensor:
    conv = layers.Conv2D(
        filters,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer=next(glorot),
        name=name,
    )
    return normalization(f"norm_{name}")(conv(x))


def _rectified(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(6.0, name=f"relu_{name}")(x)
