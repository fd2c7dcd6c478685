"""What is inside a layer, and how Keras keeps account of it.

Everything here was seen on Keras 3.15.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_lottery.keras_bridge.internals.patches import overridden


def children(layer: Any) -> list[keras.layers.Layer]:
    """The layers right inside another one.

    `Layer._flatten_layers`, seen on Keras 3.15. `Model.layers` is the public name, but
    other layers have none: attention layers and wrappers would hide what they hold.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_variables(layer: Any) -> list[keras.Variable]:
    """A layer's variables without those of the layers inside, trainable ones first.

    `Layer._trainable_variables` and `Layer._non_trainable_variables`, seen on Keras
    3.15, in the order in which files hold them. `Layer.variables` has those inside as
    well, and variables could not be named by the layer that owns them.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def random_generators(layer: Any) -> list[keras.random.SeedGenerator]:
    """A layer's own generators of random numbers, without those of layers inside.

    `Layer._seed_generators`, seen on Keras 3.15. Their states are part of what a
    training changes; public names give only the states, without their owners.
    """
    return list(layer._seed_generators)


def variable_behind(layer: Any, name: str) -> Any:
    """What a layer keeps under the name of a weight, or `None`.

    Keras 3.15 keeps what it reads through a property, such as `Dense.kernel`, in an
    attribute with an underscore. The property gives a tensor where LoRA or a mask
    changes the weight, and not the variable.
    """
    return vars(layer).get(name, vars(layer).get(f"_{name}"))


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Inside, a built layer takes new variables.

    `Layer._tracker`, seen on Keras 3.15. Without it, only layers that are not built yet
    can be masked.
    """
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.locked = locked


def forget_variable(layer: Any, name: str) -> None:
    """Removes a variable from a layer, and the attribute that holds it.

    `Layer._untrack_variable`, seen on Keras 3.15. The public `del layer.name` does the
    same and collects garbage for each variable, which takes seconds for a large model.
    """
    layer._untrack_variable(getattr(layer, name))
    super(keras.layers.Layer, layer).__delattr__(name)


@contextlib.contextmanager
def computing_in(layer: Any, policy: keras.DTypePolicy) -> Iterator[None]:
    """Inside, a layer computes in another dtype.

    `Layer._dtype_policy`, seen on Keras 3.15. To set the public `dtype_policy` writes
    into a `DTypePolicyMap` that other layers share, and could not be undone.
    """
    with overridden(layer, "_dtype_policy", policy):
        yield


def set_path(variable: Any, path: str) -> None:
    """Gives a variable the path that it would have if its layer's `build` had made it.

    `Variable._path`, seen on Keras 3.15. Without it, the masks of nested layers have
    paths that do not start with those of their layers.
    """
    variable._path = path


def build_like(new: Any, old: Any) -> None:
    """Marks a layer that has no `build` of its own as built as another one was.

    `Layer._build_shapes_dict`, seen on Keras 3.15. Without it, a copy that is saved
    does not tell the shapes that it was built with, and is not built when it is loaded.
    """
    new.built = True
    new._build_shapes_dict = old._build_shapes_dict


def copy_lambda(layer: Any) -> Any:
    """A new Lambda layer with the same function.

    `Lambda._output_shape`, seen on Keras 3.15. Without it, a Lambda whose output shape
    cannot be inferred cannot be copied. (Its config has a function's code alone, which
    Keras rightly does not trust.)
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
    """Changes the class of a layer where it is.

    Past `Layer.__setattr__`, which would track it, as seen on Keras 3.15. A layer that
    is masked in place keeps its variables, and its place in whatever holds it: in
    lists, attributes and graphs that a copy could not be put into.
    """
    object.__setattr__(layer, "__class__", new_class)


def set_untracked(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute that Keras does not look into.

    Past `Layer.__setattr__`, as seen on Keras 3.15: it would wrap tuples and
    dictionaries, take the variables and layers in them for the layer's own, and refuse
    them once the layer is built.
    """
    object.__setattr__(layer, name, value)


class Hooks:
    """Mixin of a layer that is told when it has been built or is to be quantized.

    `Layer._post_build` and `Layer._check_quantize_args`, seen on Keras 3.15. `build`
    and `quantize` themselves are bound when a layer is made, before its class is
    changed: layers that are masked before they are built would get no masks, and
    masked ones would be quantized without a word.
    """

    def after_build(self) -> None:
        """Called when the layer has been built, before its state is locked."""

    def before_quantize(self) -> None:
        """Called first of all by `quantize`."""

    def _post_build(self) -> None:
        super()._post_build()  # type: ignore[misc]
        self.after_build()

    def _check_quantize_args(self, *args: Any, **kwargs: Any) -> None:
        self.before_quantize()
        super()._check_quantize_args(*args, **kwargs)  # type: ignore[misc]


def has_value(variable: keras.Variable) -> bool:
    """Whether a variable has its value, which `fit` takes out of it on JAX.

    `Variable._value`, seen on Keras 3.15. Without it, a masked model with
    `run_eagerly=True` does not train on JAX.
    """
    return variable._value is not None
