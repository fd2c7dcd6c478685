"""Keras layers whose kernels are multiplied by a mask on every forward pass.

Two things keep a pruned weight at exactly zero. Its gradient is zero, since the mask
multiplies it: an update rule that works weight by weight leaves it alone once the
weight and its optimizer slots are zero, which `set_masks` sees to. On TensorFlow the
variable is also projected after each update, by the hook of Keras's constraints, which
covers the optimizers that mix weights (Muon) and masks assigned by hand.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
from keras import ops


class _Premasked(threading.local):
    """Whether this thread reads the variables as they are."""

    active = False


_premasked = _Premasked()


@contextlib.contextmanager
def premasked() -> Iterator[None]:
    """Inside, masked weights are read without their masks, in this thread.

    For engines that write the zeros themselves after each update and want the product
    of weight and mask out of their compiled step: `layer.kernel` is the variable, and
    the projection on TensorFlow leaves the masks out. It trusts that pruned weights are
    zero, as `set_masks` makes them. What is traced inside stays so: gradients are those
    of the plain layer, and pruned weights move unless the engine masks the update.

    Example:

    >>> layer = MaskedDense(2)
    >>> layer.build((None, 3))
    >>> with premasked():
    ...     layer.kernel is layer.weight_variable("kernel")
    True
    """
    before, _premasked.active = _premasked.active, True
    try:
        yield
    finally:
        _premasked.active = before


class Masked:
    """Mixin that masks the weights named in `masked_weights`.

    The layer holds each weight `w` in the variable `_w`, and its mask in the
    non-trainable boolean variable `w_mask`; `layer.w` reads as their product.
    """

    masked_weights: ClassVar[tuple[str, ...]] = ("kernel",)

    # Of the layer that it is mixed into.
    built: bool
    name: str
    weights: list[keras.Variable]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)  # type: ignore[misc]
        for name in self.masked_weights:
            weight = getattr(self, f"_{name}")
            mask = self.add_weight(  # type: ignore[attr-defined]
                name=f"{name}_mask",
                shape=weight.shape,
                dtype="bool",
                initializer="ones",
                trainable=False,
                autocast=False,
            )
            setattr(self, f"{name}_mask", mask)
            if keras.backend.backend() == "tensorflow":
                # The other backends update weights outside of the layer's reach.
                weight.constraint = _Projection(mask, weight.constraint)

    def mask_variable(self, name: str) -> keras.Variable:
        """The mask of the weight `name`."""
        return getattr(self, f"{name}_mask")

    def weight_variable(self, name: str) -> keras.Variable:
        """The variable behind the weight `name`, before masking."""
        return getattr(self, f"_{name}")

    def zero_pruned(self) -> None:
        """Writes the zeros of the masks into the variables."""
        for name in self.masked_weights:
            weight = self.weight_variable(name)
            weight.assign(_zeroed(weight, self.mask_variable(name)))

    # Dense and BaseConv save a fixed list of variables, without the masks.
    def save_own_variables(self, store: Any) -> None:
        if self.built:
            self.zero_pruned()
            keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        if self.built and len(store.keys()) != len(self.weights):
            raise ValueError(
                f"Expected {len(self.weights)} variables for the masked layer "
                f"'{self.name}', masks included. Received: a file with "
                f"{len(store.keys())} for it. Was it saved from an unmasked model? "
                "Load it into that model, then call `mask_model`."
            )
        keras.layers.Layer.load_own_variables(self, store)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f"The masked layer '{self.name}' cannot be quantized. "
            "Call `strip_masks(model)` first and quantize the model it returns."
        )


def _masked(weight: Any, mask: Any) -> Any:
    if mask is None or _premasked.active:
        return weight
    return ops.multiply(weight, mask)


def _zeroed(weight: Any, mask: Any) -> Any:
    # A product would leave -0.0 for negative weights, which compresses badly.
    # JAX takes no variables here, only their values.
    mask, weight = ops.convert_to_tensor(mask), ops.convert_to_tensor(weight)
    return ops.where(mask, weight, 0)


class _Projection:
    """Constraint that applies the layer's own constraint, then the mask."""

    def __init__(self, mask: keras.Variable, constraint: Any) -> None:
        self.mask = mask
        self.constraint = constraint

    def __call__(self, weight: Any) -> Any:
        if self.constraint is not None:
            weight = self.constraint(weight)
        return weight if _premasked.active else _zeroed(weight, self.mask)


class _MaskedWeight:
    """Descriptor for a weight that Keras keeps in a plain attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        weight = getattr(layer, f"_{self.name}")
        return _masked(weight, getattr(layer, f"{self.name}_mask", None))

    def __set__(self, layer: Any, value: Any) -> None:
        setattr(layer, f"_{self.name}", value)


class _MaskedKernelProperty(Masked):
    """Masks a layer that already reads its kernel through a property."""

    @property
    def kernel(self) -> Any:
        kernel = super().kernel  # type: ignore[misc]
        return _masked(kernel, getattr(self, "kernel_mask", None))


_register = keras.saving.register_keras_serializable(package="keras_lottery")


@_register
class MaskedDense(_MaskedKernelProperty, keras.layers.Dense):
    """`keras.layers.Dense` with a `kernel_mask`. Takes the same arguments.

    Example:

    >>> import numpy as np
    >>> layer = MaskedDense(2)
    >>> layer.build((None, 3))
    >>> layer.kernel_mask.assign(np.zeros((3, 2), bool)) is not None
    True
    >>> float(abs(np.asarray(layer.kernel)).sum())
    0.0
    """


@_register
class MaskedConv1D(_MaskedKernelProperty, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a `kernel_mask`. Takes the same arguments."""


@_register
class MaskedConv2D(_MaskedKernelProperty, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a `kernel_mask`. Takes the same arguments."""


@_register
class MaskedDepthwiseConv2D(Masked, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a `kernel_mask`. Takes the same arguments."""

    kernel = _MaskedWeight()


@_register
class MaskedSeparableConv2D(Masked, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` with a `depthwise_kernel_mask` and a
    `pointwise_kernel_mask`. Takes the same arguments."""

    masked_weights = ("depthwise_kernel", "pointwise_kernel")
    depthwise_kernel = _MaskedWeight()
    pointwise_kernel = _MaskedWeight()


MASKED_LAYERS: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Dense: MaskedDense,
    keras.layers.Conv1D: MaskedConv1D,
    keras.layers.Conv2D: MaskedConv2D,
    keras.layers.DepthwiseConv2D: MaskedDepthwiseConv2D,
    keras.layers.SeparableConv2D: MaskedSeparableConv2D,
}
"""The masked layer for each ordinary one."""
