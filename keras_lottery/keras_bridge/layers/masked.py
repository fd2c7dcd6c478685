"""Layers whose weights are multiplied by a mask on every forward pass.

Two mechanisms keep a pruned weight at exactly zero. First, its gradient is zero,
because the mask multiplies the weight, in the penalties of regularisers too. An
elementwise update rule therefore does not move it once the weight and its optimizer
slots are zero, as `set_masks` makes them. Second, the variable is projected after each
update, through the hook of Keras's constraints. This covers optimizers that mix weights
(Muon), constraints that move zeros, and masks assigned by hand.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import keras
from keras import ops

from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.internals.layers import (
    Hooks,
    forget_variable,
    own_variables,
    set_class,
    set_path,
    unlocked,
    variable_behind,
)


class _Premasked(threading.local):
    """Whether this thread reads masked weights without their masks."""

    active = False


_premasked = _Premasked()


@contextlib.contextmanager
def premasked() -> Iterator[None]:
    """Inside, masked weights are read without their masks, in this thread.

    This is for engines that mask the gradients themselves and do not want the product
    of weight and mask in their compiled step: `layer.kernel` is the variable. It
    requires pruned weights to be zero, as `set_masks` makes them. A function that is
    traced inside keeps this behaviour: its gradients are those of the plain layer, and
    pruned weights move unless the engine masks the gradients. `unprojected` leaves out
    the projection as well.

    Example:

    >>> from keras_lottery.keras_bridge.layers import MaskedDense
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


class _Instead(threading.local):
    """The tensors that this thread reads in place of masked weights."""

    values: Mapping[int, Any] = {}


_instead = _Instead()


@contextlib.contextmanager
def read_as(values: Mapping[int, Any]) -> Iterator[None]:
    """Inside, masked weights are read as other tensors, in this thread.

    Args:
        values: tensors of the weights' shapes, by the `id` of the weights' variables.

    Example:

    >>> from keras_lottery.keras_bridge.layers import MaskedDense
    >>> layer = MaskedDense(2)
    >>> layer.build((None, 3))
    >>> with read_as({id(layer.weight_variable("kernel")): ops.ones((3, 2))}):
    ...     print(ops.convert_to_numpy(layer(ops.ones((1, 3)))))
    [[3. 3.]]
    """
    before, _instead.values = _instead.values, values
    try:
        yield
    finally:
        _instead.values = before


class Masked(Hooks):
    """Mixin that masks the weights named in `masked_weights`.

    The mask of a weight `w` is the non-trainable boolean variable `w_mask`; reading
    `layer.w` gives the product of the two. The variable itself stays where the ordinary
    layer keeps it, so that a layer can be masked by changing its class (`mask_layer`).
    """

    masked_weights: ClassVar[tuple[str, ...]] = ()

    rounding: Callable[[str, Any], Any] | None = None
    """Rounds a masked weight, by name, when it is read; set by `QuantizationAware`."""

    # Defined by the layer class that this is mixed into.
    built: bool
    name: str

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in vars(cls).get("masked_weights", ()):
            setattr(cls, name, _MaskedWeight(name, getattr(cls, name, None)))

    def after_build(self) -> None:
        super().after_build()
        self._add_masks()

    def _add_masks(self) -> None:
        for name in self.masked_weights:
            if hasattr(self, f"{name}_mask"):
                continue
            weight = self.weight_variable(name)
            # Layers that share a weight share its mask.
            mask = getattr(weight, "pruning_mask", None)
            if mask is None:
                mask = self._new_mask(name, weight)
            setattr(self, f"{name}_mask", mask)

    def _new_mask(self, name: str, weight: keras.Variable) -> keras.Variable:
        mask = self.add_weight(  # type: ignore[attr-defined]
            name=f"{name}_mask",
            shape=weight.shape,
            dtype="bool",
            initializer="ones",
            trainable=False,
            autocast=False,
        )
        set_path(mask, f"{weight.path}_mask")
        weight.pruning_mask = mask
        weight.constraint = _Projection(mask, weight.constraint)
        if weight.regularizer is not None:
            weight.regularizer = _MaskedRegularizer(mask, weight.regularizer)
        return mask

    def _remove_masks(self) -> None:
        for name in self.masked_weights:
            weight = self.weight_variable(name)
            weight.pruning_mask = None
            if isinstance(weight.constraint, _Projection):
                weight.constraint = weight.constraint.constraint
            if isinstance(weight.regularizer, _MaskedRegularizer):
                weight.regularizer = weight.regularizer.regularizer
            forget_variable(self, f"{name}_mask")

    def mask_variable(self, name: str) -> keras.Variable:
        """Returns the mask of the weight `name`."""
        return getattr(self, f"{name}_mask")

    def weight_variable(self, name: str) -> keras.Variable:
        """Returns the variable behind the weight `name`, without the mask."""
        variable = variable_behind(self, name)
        if not isinstance(variable, keras.Variable) or "float" not in variable.dtype:
            raise ValueError(
                f"Expected `{name}` of the layer '{self.name}' to be a variable of "
                f"floats, in `layer.{name}` or `layer._{name}`. Received: {variable!r}"
            )
        return variable

    def zero_pruned(self) -> None:
        """Sets the pruned entries of the variables to zero."""
        for name in self.masked_weights:
            weight = self.weight_variable(name)
            weight.assign(_zeroed(weight, self.mask_variable(name)))

    # Many of Keras's layers save a fixed list of variables, without the masks.
    def save_own_variables(self, store: Any) -> None:
        if self.built:
            self.zero_pruned()
            keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        own = own_variables(self)
        if self.built and len(store.keys()) != len(own):
            raise ValueError(
                f"Expected {len(own)} variables for the masked layer "
                f"'{self.name}', masks included. Received: a file with "
                f"{len(store.keys())} for it. Was it saved from an unmasked model? "
                "Load it into that model, then call `mask_model`."
            )
        keras.layers.Layer.load_own_variables(self, store)

    def before_quantize(self) -> None:
        raise NotImplementedError(
            f"The masked layer '{self.name}' cannot be quantized. "
            "Call `strip_masks(model)` first and quantize the model it returns."
        )

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Raises NotImplementedError, since masked layers do not support LoRA."""
        raise NotImplementedError(
            f"The masked layer '{self.name}' cannot have LoRA weights: its kernel "
            "would be more than the product of a variable and a mask. Call "
            "`strip_masks(model)` first and use the model it returns."
        )


def mask_layer(layer: keras.layers.Layer, masked_class: type[Masked]) -> None:
    """Turns an ordinary layer, built or not, into a masked one in place."""
    if getattr(layer, "lora_enabled", False) or layer.quantization_mode is not None:
        raise ValueError(
            f"The layer '{layer.name}' has LoRA weights or is quantized, so that its "
            "weight is not the product of a variable and a mask. Prune first, or leave "
            "it out of `prunable`."
        )
    set_class(layer, masked_class)
    if layer.built:
        with unlocked(layer):
            layer._add_masks()


def unmask_layer(layer: Masked, ordinary_class: type[keras.layers.Layer]) -> None:
    """Turns a masked layer into an ordinary one in place; pruned weights are zero."""
    if layer.built:
        layer.zero_pruned()
        layer._remove_masks()
    set_class(layer, ordinary_class)


def _masked(weight: Any, mask: Any) -> Any:
    if mask is None or _premasked.active:
        return weight
    return ops.multiply(weight, mask)


def _zeroed(weight: Any, mask: Any) -> Any:
    # A product would leave -0.0 for negative weights, which compresses badly.
    # JAX accepts only the values of variables here.
    mask, weight = ops.convert_to_tensor(mask), ops.convert_to_tensor(weight)
    return ops.where(mask, weight, 0)


class _Projection(keras.constraints.Constraint):
    """Constraint that applies the mask, and then the layer's own constraint.

    If the backend does not know the mask of the step, only the layer's own constraint
    is applied.
    """

    def __init__(self, mask: keras.Variable, constraint: Any) -> None:
        self.mask = mask
        self.constraint = constraint

    def __call__(self, weight: Any) -> Any:
        mask = backends.current().mask_of_step(self.mask, weight)
        zeroed = (lambda array: array) if mask is None else partial(_zeroed, mask=mask)
        weight = zeroed(weight)
        return weight if self.constraint is None else zeroed(self.constraint(weight))


class _MaskedRegularizer(keras.regularizers.Regularizer):
    """Regularizer that is applied to the masked weight.

    The derivative of a penalty at zero need not be zero: that of |w| is 1 on JAX.
    """

    def __init__(self, mask: keras.Variable, regularizer: Any) -> None:
        self.mask = mask
        self.regularizer = regularizer

    def __call__(self, weight: Any) -> Any:
        return self.regularizer(_masked(weight, self.mask))


@contextlib.contextmanager
def unprojected(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Inside, variables have only the constraints that layers were given."""
    with contextlib.ExitStack() as stack:
        for variable in variables:
            if isinstance(variable.constraint, _Projection):
                stack.callback(setattr, variable, "constraint", variable.constraint)
                variable.constraint = variable.constraint.constraint
        yield


class _MaskedWeight:
    """Descriptor that returns a weight multiplied by its mask."""

    def __init__(self, name: str, ordinary: Any) -> None:
        self.name = name
        # Keras's own property, if the weight is not a plain attribute.
        self.property = ordinary if isinstance(ordinary, property) else None

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        if self.property is not None:
            weight = self.property.__get__(layer, owner)
        elif self.name in vars(layer):
            weight = vars(layer)[self.name]
        else:
            raise AttributeError(f"'{layer.name}' has no `{self.name}` yet.")
        if id(weight) in _instead.values:
            return ops.cast(_instead.values[id(weight)], layer.compute_dtype)
        mask = getattr(layer, f"{self.name}_mask", None)
        if mask is not None:
            backends.current().read_mask(mask)
        weight = _masked(weight, mask)
        return layer.rounding(self.name, weight) if layer.rounding else weight

    def __set__(self, layer: Any, value: Any) -> None:
        if self.property is not None:
            self.property.__set__(layer, value)
        else:
            vars(layer)[self.name] = value
