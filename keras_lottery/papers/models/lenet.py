"""LeNets for MNIST."""

import keras
from keras import layers

from keras_lottery.papers.models.initializers import glorot_normals
from keras_lottery.papers.models.recipe import Recipe, check_images

LENET_300_100 = Recipe(
    optimizer="adam",
    learning_rate=1.2e-3,
    batch_size=60,
    steps=50_000,
    rates={"hidden_*": 0.2, "output": 0.1},
    jit_compile=True,
    steps_per_execution=100,
)

# Frankle & Carbin do not train LeNet-5. The optimizer is that of their LeNet-300-100;
# the length and pruning rates are those of their smallest convolutional network.
LENET_5 = Recipe(
    optimizer="adam",
    learning_rate=1.2e-3,
    batch_size=60,
    steps=20_000,
    rates={"conv_*": 0.1, "hidden_*": 0.2, "output": 0.1},
    steps_per_execution=10,
)


def lenet_300_100(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """LeNet-300-100: two hidden layers; 266,610 parameters on MNIST.

    Args:
        input_shape: Shape of one image, which is flattened.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.

    Returns:
        An uncompiled model that outputs logits: train it with a loss that has
        `from_logits=True`, as `compile_model` does.

    Reference:
        Frankle & Carbin, [The Lottery Ticket Hypothesis](
        https://arxiv.org/abs/1803.03635), 2019, Figure 2.

    Example:

    >>> lenet_300_100(seed=0).count_params()
    266610
    """
    check_images(input_shape, classes)
    glorot = glorot_normals(seed)
    return keras.Sequential(
        [
            layers.Input(input_shape),
            layers.Flatten(name="flatten"),
            layers.Dense(300, "relu", kernel_initializer=next(glorot), name="hidden_1"),
            layers.Dense(100, "relu", kernel_initializer=next(glorot), name="hidden_2"),
            layers.Dense(classes, kernel_initializer=next(glorot), name="output"),
        ],
        name="lenet_300_100",
    )


def lenet_5(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """LeNet-5 as the pruning literature counts it: 430,500 weights on MNIST.

    This is Caffe's version (20 and 50 filters of 5x5, unpadded, then 500 units), with
    a ReLU after every layer except the last.

    Args:
        input_shape: Shape of one image, at least 16 pixels wide and high.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.

    Returns:
        An uncompiled model that outputs logits.

    Raises:
        ValueError: if the images are too small.

    Reference:
        LeCun et al., [Gradient-based learning applied to document recognition](
        https://doi.org/10.1109/5.726791), 1998; its sizes are those of
        [Caffe](https://github.com/BVLC/caffe/tree/master/examples/mnist).

    Example:

    >>> lenet_5(seed=0).count_params()  # 430,500 weights and 580 biases
    431080
    """
    if min(input_shape[:2]) < 16:
        raise ValueError(
            "Expected images of at least 16x16 pixels for lenet_5. Received: "
            f"input_shape={input_shape}. Take lenet_300_100 or conv_2 for smaller ones."
        )
    check_images(input_shape, classes)
    glorot = glorot_normals(seed)
    return keras.Sequential(
        [
            layers.Input(input_shape),
            layers.Conv2D(
                20, 5, activation="relu", kernel_initializer=next(glorot), name="conv_1"
            ),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(
                50, 5, activation="relu", kernel_initializer=next(glorot), name="conv_2"
            ),
            layers.MaxPooling2D(name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(500, "relu", kernel_initializer=next(glorot), name="hidden_1"),
            layers.Dense(classes, kernel_initializer=next(glorot), name="output"),
        ],
        name="lenet_5",
    )
