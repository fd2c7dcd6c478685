"""The parts of a layer, and how Keras tracks them.

Everything here was seen on Keras 3.15.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.patches import overridden


def children(layer: Any) -> list[keras.layers.Layer]:
    """Returns the layers directly inside another one.

    `Layer._flatten_layers`, seen on Keras 3.15. `Model.layers` is public, but other
    layers have no such name: the layers inside attention layers and wrappers would not
    be found.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_variables(layer: Any) -> list[keras.Variable]:
    """Returns a layer's variables without those of inner layers, trainable ones first.

    `Layer._trainable_variables` and `Layer._non_trainable_variables`, seen on Keras
    3.15, in the order in which files hold them. `Layer.variables` includes those of
    inner layers, so that variables could not be named by the layer that owns them.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def random_generators(layer: Any) -> list[keras.random.SeedGenerator]:
    """Returns a layer's own random number generators, without those of inner layers.

    `Layer._seed_generators`, seen on Keras 3.15. Training changes their states; public
    names give only the states, without their owners.
    """
    return list(layer._seed_generators)


def variable_behind(layer: Any, name: str) -> Any:
    """Returns the variable that a layer stores under a weight's name, or `None`.

    Keras 3.15 keeps a weight that is read through a property, such as `Dense.kernel`,
    in an attribute with an underscore. If LoRA or a mask changes the weight, the
    property returns a tensor and not the variable.
    """
    return vars(layer).get(name, vars(layer).get(f"_{name}"))


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Inside, a built layer accepts new variables.

    `Layer._tracker`, seen on Keras 3.15. Without it, only unbuilt layers could be
    masked.
    """
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.locked = locked


def forget_variable(layer: Any, name: str) -> None:
    """Removes a variable from a layer, together with the attribute that holds it.

    `Layer._untrack_variable`, seen on Keras 3.15. The public `del layer.name` also runs
    the garbage collector for each variable, which takes seconds for a large model.
    """
    layer._untrack_variable(getattr(layer, name))
    super(keras.layers.Layer, layer).__delattr__(name)


@contextlib.contextmanager
def computing_in(layer: Any, policy: keras.DTypePolicy) -> Iterator[None]:
    """Inside, a layer computes in another dtype.

    `Layer._dtype_policy`, seen on Keras 3.15. Setting the public `dtype_policy` writes
    into a `DTypePolicyMap` that other layers share, and could not be undone.
    """
    with overridden(layer, "_dtype_policy", policy):
        yield


def set_path(variable: Any, path: str) -> None:
    """Sets a variable's path to the one that its layer's `build` would have given it.

    `Variable._path`, seen on Keras 3.15. Without it, the masks of nested layers have
    paths that do not start with those of their layers.
    """
    variable._path = path


def build_like(new: Any, old: Any) -> None:
    """Marks a layer without its own `build` as built with another layer's shapes.

    `Layer._build_shapes_dict`, seen on Keras 3.15. Without it, a saved copy does not
    contain the shapes that it was built with, and is not built when it is loaded.
    """
    new.built = True
    new._build_shapes_dict = old._build_shapes_dict


def copy_lambda(layer: Any) -> Any:
    """Returns a new Lambda layer with the same function.

    `Lambda._output_shape`, seen on Keras 3.15. Without it, a Lambda whose output shape
    cannot be inferred cannot be copied. (Its config holds only the function's code,
    which Keras rightly does not trust.)
    """
    return type(layer)(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def set_class(layer: Any, new_class: type) -> None:
    """Changes the class of a layer in place.

    It bypasses `Layer.__setattr__`, which would track the class, as seen on Keras 3.15.
    A layer that is masked in place keeps its variables. It also keeps its place in the
    lists, attributes and graphs that hold it, where a copy could not be inserted.
    """
    object.__setattr__(layer, "__class__", new_class)


def set_untracked(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute that Keras does not track.

    It bypasses `Layer.__setattr__`, as seen on Keras 3.15, which would wrap tuples and
    dictionaries, treat the variables and layers in them as the layer's own, and reject
    them once the layer is built.
    """
    object.__setattr__(layer, name, value)


class Hooks:
    """Mixin with hooks that run after a layer is built and before it is quantized.

    `Layer._post_build` and `Layer._check_quantize_args`, seen on Keras 3.15. `build`
    and `quantize` themselves are bound when a layer is created, before its class is
    changed: layers that are masked before they are built would get no masks, and masked
    layers would be quantized silently.
    """

    def after_build(self) -> None:
        """Is called when the layer has been built, before its state is locked."""

    def before_quantize(self) -> None:
        """Is called by `quantize` before anything else."""

    def _post_build(self) -> None:
        super()._post_build()  # type: ignore[misc]
        self.after_build()

    def _check_quantize_args(self, *args: Any, **kwargs: Any) -> None:
        self.before_quantize()
        super()._check_quantize_args(*args, **kwargs)  # type: ignore[misc]


def has_value(variable: keras.Variable) -> bool:
    """Whether a variable holds its value, which `fit` moves out of it on JAX.

    `Variable._value`, seen on Keras 3.15. Without it, a masked model with
    `run_eagerly=True` does not train on JAX.
    """
    return variable._value is not None
