"""The layers that have a masked form, from Keras and from the user."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_lottery.keras_bridge.layers.masked import Masked

MASKED_LAYERS: dict[type[layers.Layer], type[layers.Layer]] = {}
"""The masked layer class for each ordinary one."""

ORDINARY_LAYERS: dict[type[layers.Layer], type[layers.Layer]] = {}
"""The ordinary layer class for each masked one."""


def register_masked(
    layer_class: type[layers.Layer], weights: Sequence[str] = ("kernel",)
) -> type[layers.Layer]:
    """Creates the masked form of a layer of your own, for use by `mask_model`.

    Call it next to the layer's definition: a file with such masked layers can be loaded
    only where they are registered.

    Args:
        layer_class: a layer class that keeps its weights in variables, and reads them
            as `self.<name>` in its `call`.
        weights: the names of the attributes to mask.

    Returns:
        The masked class, named `Masked` followed by the layer's name, which takes the
        same arguments.

    Raises:
        ValueError: if `layer_class` is not a layer class, if another class of this name
            has a masked form, or if the class has its own way of saving variables.

    Example:

    >>> @keras.saving.register_keras_serializable()
    ... class Scaled(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=input_shape[-1:], name="scale")
    ...
    ...     def call(self, x):
    ...         return x * self.scale
    >>> MaskedScaled = register_masked(Scaled, weights=("scale",))
    >>> from keras_lottery import mask_model
    >>> masked = mask_model(keras.Sequential([keras.Input((4,)), Scaled()]))
    >>> [type(layer).__name__ for layer in masked.layers]
    ['MaskedScaled']
    """
    _check(layer_class, weights)
    name = f"Masked{layer_class.__name__}"
    masks = " and a ".join(f"`{weight}_mask`" for weight in weights)
    masked = type(
        name,
        (Masked, layer_class),
        {
            "__doc__": f"`{layer_class.__name__}` with a {masks}; the same arguments.",
            "__module__": __name__,
            "masked_weights": tuple(weights),
        },
    )
    keras.saving.register_keras_serializable("keras_lottery")(masked)
    MASKED_LAYERS[layer_class] = masked
    ORDINARY_LAYERS[masked] = layer_class
    return masked


def _check(layer_class: type[layers.Layer], weights: Sequence[str]) -> None:
    if not (isinstance(layer_class, type) and issubclass(layer_class, layers.Layer)):
        raise ValueError(
            "Expected `layer_class` to be a class of Keras layers. Received: "
            f"layer_class={layer_class!r}"
        )
    if isinstance(weights, str) or not weights:
        raise ValueError(
            "Expected `weights` to be the names of one or more attributes, such as "
            f'("kernel",). Received: weights={weights!r}'
        )
    namesake = keras.saving.get_registered_object(
        f"keras_lottery>Masked{layer_class.__name__}"
    )
    known = ORDINARY_LAYERS.get(namesake)
    # A class that is defined again, as in a notebook, replaces the first one.
    if known and (known.__module__, known.__qualname__) != (
        layer_class.__module__,
        layer_class.__qualname__,
    ):
        raise ValueError(
            f"Another class `{layer_class.__name__}` has a masked form already: "
            f"{known!r}. Files would mix the two up. Give one of them another name."
        )
    for owner in layer_class.__mro__:
        if owner.__module__.partition(".")[0] == "keras":
            break
        if {"save_own_variables", "load_own_variables"} & vars(owner).keys():
            raise ValueError(
                f"`{owner.__name__}` saves its variables in a way of its own, which "
                "would leave the masks out. Derive a class from "
                "`keras_lottery.layers.Masked` and the layer that saves them as well."
            )


MaskedDense = register_masked(layers.Dense)
MaskedEinsumDense = register_masked(layers.EinsumDense)
MaskedConv1D = register_masked(layers.Conv1D)
MaskedConv2D = register_masked(layers.Conv2D)
MaskedConv3D = register_masked(layers.Conv3D)
MaskedConv1DTranspose = register_masked(layers.Conv1DTranspose)
MaskedConv2DTranspose = register_masked(layers.Conv2DTranspose)
MaskedConv3DTranspose = register_masked(layers.Conv3DTranspose)
MaskedDepthwiseConv1D = register_masked(layers.DepthwiseConv1D)
MaskedDepthwiseConv2D = register_masked(layers.DepthwiseConv2D)

# The depthwise part is not masked, since it is a small share of the weights.
MaskedSeparableConv1D = register_masked(layers.SeparableConv1D, ("pointwise_kernel",))
MaskedSeparableConv2D = register_masked(layers.SeparableConv2D, ("pointwise_kernel",))

# LSTM, GRU and SimpleRNN keep their weights in their cells.
_RECURRENT = ("kernel", "recurrent_kernel")
MaskedLSTMCell = register_masked(layers.LSTMCell, _RECURRENT)
MaskedGRUCell = register_masked(layers.GRUCell, _RECURRENT)
MaskedSimpleRNNCell = register_masked(layers.SimpleRNNCell, _RECURRENT)

MaskedEmbedding = register_masked(layers.Embedding, ("embeddings",))
MaskedReversibleEmbedding = register_masked(layers.ReversibleEmbedding, ("embeddings",))


def is_multiplied(layer_class: type[layers.Layer]) -> bool:
    """Whether a layer has a masked form and multiplies by its weights.

    An embedding looks its weights up instead. A row of it is updated as often as its
    word occurs, so that its magnitudes cannot be compared with those of kernels.
    """
    return layer_class in MASKED_LAYERS and not issubclass(
        layer_class, layers.Embedding
    )
