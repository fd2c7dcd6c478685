"""Networks that experiments train in addition to those of `models`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_lottery.keras_bridge.layers import State, get_state, set_state
from keras_lottery.papers import models

Builder = Callable[..., keras.Model]


def with_dropout(model: str | Builder, rate: float = 0.5) -> Builder:
    """Adds dropout after each hidden layer of a network, given itself or by name.

    >>> model = with_dropout("lenet_300_100")((8, 8, 1))
    >>> [layer.name for layer in model.layers if "dropout" in layer.name]
    ['dropout_hidden_1', 'dropout_hidden_2']
    """

    def build(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
        plain = models.get(model)(input_shape, classes)
        stack: list[layers.Layer] = []
        for layer in plain.layers:
            stack.append(layer)
            if layer.name.startswith("hidden"):
                stack.append(layers.Dropout(rate, name=f"dropout_{layer.name}"))
        inputs = keras.Input(input_shape)
        return keras.Sequential([inputs, *stack], name=f"{plain.name}_dropout")

    return build


def dense(widths: Sequence[int], name: str | None = None) -> Builder:
    """LeNet-300-100 with hidden layers of other widths; its name says which.

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


@keras.saving.register_keras_serializable("keras_lottery")
class Bias(layers.Layer):
    """Adds a bias to each unit, as a layer of its own."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.bias = self.add_weight(
            shape=input_shape[-1:], initializer="zeros", name="bias"
        )

    def call(self, inputs: Any) -> Any:
        return inputs + self.bias


def lenet_of(name: str, product: Callable[[str, int, Any], Any]) -> Builder:
    """LeNet-300-100 with another operation in place of inputs times kernel.

    Args:
        name: the name of the network.
        product: `(layer's name, units, inputs) -> outputs`, before bias and activation.

    >>> def plain(name, units, inputs):
    ...     return layers.Dense(units, use_bias=False, name=name)(inputs)
    >>> model = lenet_of("apart", plain)((8, 8, 1))
    >>> [weight.path for weight in model.weights][:2]
    ['hidden_1/kernel', 'hidden_1_bias/bias']
    """

    def build(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
        x = inputs = keras.Input(input_shape)
        for layer in models.lenet_300_100(input_shape, classes).layers:
            if isinstance(layer, layers.Dense):
                x = product(layer.name, layer.units, x)
                x = Bias(name=f"{layer.name}_bias")(x)
                x = layers.Activation(layer.activation, name=f"{layer.name}_units")(x)
            else:
                x = layer(x)
        return keras.Model(inputs, x, name=name)

    return build


def biases_apart(state: State) -> dict[str, np.ndarray]:
    """A state of LeNet-300-100 with the names that `lenet_of` gives its biases.

    >>> list(biases_apart({"out/kernel": np.ones((1, 1)), "out/bias": np.ones(1)}))
    ['out/kernel', 'out_bias/bias']
    """
    return {n.replace("/bias", "_bias/bias"): value for n, value in state.items()}


@dataclass(frozen=True)
class PreTrained:
    """Builds a network that takes all weights of the same name from another one.

    Args:
        builder: `(input_shape, classes) -> model`.
        weights: the pre-trained weights.
    """

    builder: Builder
    weights: State

    def __call__(
        self, input_shape: tuple[int, ...], classes: int, **how: Any
    ) -> keras.Model:
        """Builds the network; a head that the other one lacks is initialised."""
        model = self.builder(input_shape, classes, **how)
        own = get_state(model)
        known = {name: a for name, a in self.weights.items() if name in own}
        set_state(model, {**own, **known})
        return model


def narrow_conv(blocks: int) -> Builder:
    """Conv-2, Conv-4 or Conv-6 with a quarter of the filters in each convolution.

    Args:
        blocks: pairs of convolutions: 1, 2 or 3.

    >>> [narrow_conv(n)((16, 16, 3)).count_params() for n in (1, 2, 3)]
    [333530, 216346, 206234]
    """
    glorot: dict[str, Any] = {"kernel_initializer": "glorot_normal"}

    def build(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
        stack: list[layers.Layer] = []
        for block in range(blocks):
            for index in (2 * block + 1, 2 * block + 2):
                stack.append(
                    layers.Conv2D(
                        16 * 2**block,
                        3,
                        padding="same",
                        activation="relu",
                        name=f"conv_{index}",
                        **glorot,
                    )
                )
            stack.append(layers.MaxPooling2D(name=f"pool_{block + 1}"))
        return keras.Sequential(
            [
                keras.Input(input_shape),
                *stack,
                layers.Flatten(name="flatten"),
                layers.Dense(256, "relu", name="hidden_1", **glorot),
                layers.Dense(256, "relu", name="hidden_2", **glorot),
                layers.Dense(classes, name="output", **glorot),
            ],
            name=f"narrow_conv_{2 * blocks}",
        )

    return build


def small_conv(input_shape: tuple[int, ...], classes: int = 10) -> keras.Model:
    """A small convolutional network that CPUs train in minutes.

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
