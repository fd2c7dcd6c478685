"""Residual networks for CIFAR-10."""

import itertools

import keras
from keras import layers

from keras_lottery import checks
from keras_lottery.papers.models.augment import augmentation
from keras_lottery.papers.models.initializers import glorot_normals
from keras_lottery.papers.models.normalization import normalization
from keras_lottery.papers.models.recipe import check_images


def resnet(
    depth: int,
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
    width: int = 16,
) -> keras.Model:
    """A residual network of three stages of 16, 32 and 64 filters.

    Args:
        depth: Number of layers with weights, without shortcuts: 6 n + 2.
        input_shape: Shape of one image.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.
        augment: Whether training moves images by up to an eighth, and mirrors them.
        width: Filters of the first stage; the others have two and four times as many.

    Returns:
        An uncompiled model that outputs logits.

    Raises:
        ValueError: if there is no such depth or width.

    Reference:
        He et al. 2016, [Deep residual learning for image recognition](
        https://arxiv.org/abs/1512.03385), section 4.2. Shortcuts that change the width
        are 1x1 convolutions, as in Frankle & Carbin 2019.

    Example:

    >>> resnet(8, input_shape=(8, 8, 1)).count_params()
    78426
    """
    if checks.count("depth", depth, 8) % 6 != 2:
        checks.refuse("depth", "one of 8, 14, 20, … (6 n + 2)", depth)
    checks.flag("augment", augment)
    checks.count("width", width, 1)
    check_images(input_shape, classes)
    glorot = glorot_normals(seed)
    number, ramps, sums = (itertools.count(1) for _ in range(3))

    def convolve(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
        index = next(number)
        x = layers.Conv2D(
            filters,
            3,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer=next(glorot),
            name=f"conv_{index}",
        )(x)
        return normalization(f"norm_{index}")(x)

    def rectify(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.ReLU(name=f"relu_{next(ramps)}")(x)

    inputs = x = keras.Input(input_shape)
    for layer in augmentation(seed) if augment else ():
        x = layer(x)
    x = rectify(convolve(x, width, 1))
    for stage, filters in enumerate((width, 2 * width, 4 * width)):
        for block in range(depth // 6):
            stride = 2 if stage and not block else 1
            y = rectify(convolve(x, filters, stride))
            y = convolve(y, filters, 1)
            if x.shape[-1] != filters:
                x = layers.Conv2D(
                    filters,
                    1,
                    stride,
                    use_bias=False,
                    kernel_initializer=next(glorot),
                    name=f"shortcut_{stage}",
                )(x)
                x = normalization(f"shortcut_norm_{stage}")(x)
            x = rectify(layers.Add(name=f"add_{next(sums)}")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, kernel_initializer=next(glorot), name="output")(x)
    name = f"resnet_{depth}" if width == 16 else f"resnet_{depth}_width_{width}"
    return keras.Model(inputs, outputs, name=name)


def resnet_20(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """ResNet-20, which Frankle & Carbin call ResNet-18.

    Arguments, result and reference are the same as in `resnet`.

    Example:

    >>> resnet_20(seed=0).count_params()
    274042
    """
    return resnet(20, input_shape, classes, seed, augment)


def resnet_56(
    input_shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    seed: int | None = None,
    augment: bool = False,
) -> keras.Model:
    """ResNet-56: 855,770 trained parameters.

    Arguments, result and reference are the same as in `resnet`; the recipe is by Renda
    et al. 2020, [Comparing rewinding and fine-tuning](
    https://arxiv.org/abs/2003.02389).
    """
    return resnet(56, input_shape, classes, seed, augment)
