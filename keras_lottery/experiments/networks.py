"""Networks that experiments train beside those of `models`."""

from collections.abc import Callable, Sequence

import keras
from keras import layers

from keras_lottery import models

Builder = Callable[..., keras.Model]


def with_dropout(model: str, rate: float = 0.5) -> Builder:
    """A network of `models` with dropout after each hidden dense layer.

    >>> model = with_dropout("lenet_300_100")((8, 8, 1))
    >>> [layer.name for layer in model.layers if "dropout" in layer.name]
    ['dropout_hidden_1', 'dropout_hidden_2']
    """

    def build(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
        stack: list[layers.Layer] = []
        for layer in models.get(model)(input_shape, classes).layers:
            stack.append(layer)
            if layer.name.startswith("hidden"):
                stack.append(layers.Dropout(rate, name=f"dropout_{layer.name}"))
        inputs = keras.Input(input_shape)
        return keras.Sequential([inputs, *stack], name=f"{model}_dropout")

    return build


def dense(widths: Sequence[int], name: str | None = None) -> Builder:
    """LeNet-300-100 with hidden layers of other widths, which name it by default.

    >>> model = dense([30, 20])((8, 8, 1))
    >>> model.name, model.count_params()
    ('dense_30_20', 2780)
    """
    name = name or f"dense_{'_'.join(map(str, widths))}"

    def build(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
        hidden = [
            layers.Dense(
                width,
                "relu",
                kernel_initializer="glorot_normal",
                name=f"hidden_{index}",
            )
            for index, width in enumerate(widths, start=1)
        ]
        return keras.Sequential(
            [
                keras.Input(input_shape),
                layers.Flatten(name="flatten"),
                *hidden,
                layers.Dense(
                    classes, kernel_initializer="glorot_normal", name="output"
                ),
            ],
            name=name,
        )

    return build


def small_conv(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
    """A small convolutional network, which processors train in minutes.

    >>> small_conv((28, 28, 1)).count_params()
    52138
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, "relu", name="hidden_1"),
            layers.Dense(classes, name="output"),
        ],
        name="small_conv",
    )
